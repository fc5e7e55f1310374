"""Fixtures for tests on a trained model: real tokens, and a small dense model trained on them."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.tokens import TokenDataset
from stages.training.pretrain import Pretrain
from tests.stages.training.texts import token_set
from tests.support import run_stage


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [(library / name).read_text() for name in ("argparse.py", "ast.py", "bisect.py", "calendar.py", "cmd.py")]
    return token_set(tmp_path_factory.mktemp("tokens") / "set", {"train": texts[:4], "validation": texts[4:]}, 500)


@pytest.fixture(scope="session")
def dense(tokens: TokenDataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    stage = Pretrain.model_validate({
        "tokens": "tokens",
        "model": {
            "vocab_size": 512, "hidden_size": 64, "layers": 3, "heads": 4,
            "context_length": 128, "initial_deviation": 0.07,
        },
        "steps": 60, "global_batch_size": 8, "micro_batch_size": 8, "sequence_length": 64,
        "learning_rate": 0.01, "warmup_steps": 5, "validation_every": 60, "validation_samples": 8,
    })  # fmt: skip
    checkpoint: Checkpoint
    checkpoint, _ = run_stage(stage, {"tokens": tokens}, tmp_path_factory.mktemp("dense"))
    return checkpoint
