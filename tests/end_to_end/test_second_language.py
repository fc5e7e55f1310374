"""The shipped pipeline that teaches a model a second language, at a size that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from pipelines.store import Store, StoreConfig
from stages.artifacts.checkpoint import Checkpoint
from stages.word_alignment.texts import PackageDocumentation
from tests.end_to_end.conftest import CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SMALL = [
    "pipeline=second_language", "cluster=inline", "pretrain@steps.pretrain=debug", "pretrain@steps.continued=debug",
    "model@steps.pretrain.model=debug", "tokenizer@steps.first_tokenizer=debug",
    "tokenizer@steps.second_tokenizer=debug", "steps.first_words.training.dimensions=20",
    "steps.second_words.training.dimensions=20", "steps.align.restarts=1", "steps.align.iterations=2",
    "steps.first.workers=1", "steps.second.workers=1",
]  # fmt: skip


def test_a_model_continues_in_a_second_language(bloomline: CommandLine, tmp_path: Path) -> None:
    sources = []
    halves: tuple[Literal["first"], Literal["second"]] = ("first", "second")
    for name in halves:
        text = PackageDocumentation(packages=("pydantic",), max_pages=600, half=name, substitute=name == "second")
        lines = [json.dumps({"text": " ".join(page)}) + "\n" for page in text.pages() if len(page) > 30]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        sources.append(f"steps.{name}.sources.files.reader.paths=['{tmp_path}/{name}.jsonl']")
    code, out = bloomline("run", *SMALL, *sources)
    assert code == 0, out
    store = Store(StoreConfig(root=str(bloomline.store)))
    records = {record.step: record for record in store.records()}
    first, transferred, continued = (
        Checkpoint(Path(store.uri(records[step]))) for step in ("pretrain", "transferred", "continued")
    )
    assert transferred.tokenizer().to_str() != first.tokenizer().to_str()
    assert transferred.config.layers == first.config.layers
    metrics = records["transferred"].metrics
    assert metrics["aligned_tokens"] > 50
    assert metrics["copied_tokens"] > 256
    assert continued.facts["validation_loss"] < continued.facts["validation_loss_before"]
