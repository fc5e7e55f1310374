"""What the jobs of a sweep have in common is computed once."""

from __future__ import annotations

import subprocess
import sys

from tests.examples.conftest import Project

RATES = (1e-3, 3e-3)
CELLS = """
import json
namespace = {}
for cell in json.load(open("compare.ipynb"))["cells"]:
    if cell["cell_type"] == "code":
        exec("".join(cell["source"]), namespace)
"""


def test_only_the_training_is_repeated(project: Project) -> None:
    rates = ",".join(map(str, RATES))
    project(
        "run", "--config-dir", "conf", "pipeline=sweep", "cluster=inline", "--multirun",
        f"steps.pretrain.learning_rate={rates}",
    )  # fmt: skip
    records = project.records()
    assert {step: len(found) for step, found in records.items()} == {
        "corpus": 1,
        "tokenizer": 1,
        "tokens": 1,
        "pretrain": len(RATES),
    }
    assert {record.config["learning_rate"] for record in records["pretrain"]} == set(RATES)
    listed = project("artifacts", "list", "--config-dir", "conf", "pipeline=sweep")
    assert listed.count("Checkpoint") == len(RATES)


def test_the_notebook_compares_runs(project: Project) -> None:
    """Its cells are executed as a kernel would, in one namespace."""
    variables = {**project.variables, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", CELLS], cwd=project.directory, env=variables, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for rate in ("1e-3", "3e-3", "1e-2"):
        assert f"sweep · learning_rate={rate}" in done.stdout
    assert len(project.records()["pretrain"]) == 3
    assert "artifacts/pretrain/" in done.stdout
