"""A model in the Hugging Face format is imported and quantized."""

from __future__ import annotations

import re

from tests.examples.conftest import Project


def test_an_exported_model_is_imported_and_quantized(project: Project) -> None:
    project("run", "--config-dir", "conf", "pipeline=make_model", "cluster=inline")
    shown = project("artifacts", "show", "export", "--config-dir", "conf", "pipeline=make_model")
    place = re.search(r"^\s*at\s+(\S+)$", shown, re.MULTILINE)
    assert place, shown
    given = ("pipeline=import_and_quantize", f"steps.model.source.path={place[1]}")
    project("run", "--config-dir", "conf", *given, "cluster=inline")
    records = project.records()
    assert {"model", "quantize", "evaluate"} <= set(records)
    assert records["quantize"][0].metrics["loss_increase"] < 0.05
