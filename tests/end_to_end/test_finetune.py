"""The shipped pipeline for fine-tuning, at a size that takes seconds: a model from outside, on one's own text."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest

from pipelines.store import Store, StoreConfig
from stages.artifacts.checkpoint import Checkpoint
from tests.end_to_end.conftest import CommandLine
from tests.stages.huggingface.examples import checkpoint, exported

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SMALL = [
    "cluster=inline", "pretrain@steps.finetune=debug", "evaluate@steps.evaluate=debug", "steps.finetune.ranks=1",
    "steps.finetune.learning_rate=1e-3", "steps.corpus.validation_fraction=0.3", "steps.corpus.workers=1",
]  # fmt: skip


def test_an_imported_model_on_own_text(bloomline: CommandLine, tmp_path: Path) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [(library / name).read_text()[:20_000] for name in ("argparse.py", "ast.py", "cmd.py", "calendar.py")]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    model = exported(tmp_path / "export", checkpoint(tmp_path, "llama"))
    sources = [
        f"steps.model.source.path={model.path}",
        f"steps.corpus.sources.files.reader.paths=['{tmp_path}/text.jsonl']",
    ]
    code, out = bloomline("run", "pipeline=finetune", *SMALL, *sources)
    assert code == 0, out
    store = Store(StoreConfig(root=str(bloomline.store)))
    records = {record.step: record for record in store.records()}
    assert records.keys() == {"model", "corpus", "tokenizer", "tokens", "finetune", "evaluate", "export"}
    tuned, imported = (Checkpoint(Path(store.uri(records[step]))) for step in ("finetune", "model"))
    assert tuned.config == imported.config
    assert tuned.facts["validation_loss"] < tuned.facts["validation_loss_before"]
    assert tuned.facts["started_from"]["take"] == "weights"

    code, out = bloomline("plan", "pipeline=finetune", *SMALL, *sources)
    assert (code, "run  " in out) == (0, False), out

    # A tokenizer of another step is refused before anything runs.
    other = ["+steps.other={stage: tokenizer, corpus: corpus}", "steps.tokens.tokenizer=other"]
    code, out = bloomline("plan", "pipeline=finetune", *SMALL, *sources, *other)
    assert code == 2
    assert "steps.finetune: model and tokens have different tokenizers, those of model and of other" in out
