"""Tokenizers from outside are tried once before they are imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.base import StageError
from stages.huggingface.import_model import HuggingFaceDirectory, ImportModel
from stages.huggingface.tokenizer_trial import try_tokenizer
from tests.stages.huggingface.examples import checkpoint, exported
from tests.support import run_stage

USUAL = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


def give(file: Path, *expressions: str) -> Path:
    """Put a pre-tokenizer with these expressions into a tokenizer.json."""
    values = json.loads(file.read_text())
    splits = [
        {"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False} for one in expressions
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    values["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*splits, level]}
    file.write_text(json.dumps(values))
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return exported(tmp_path / "export", checkpoint(tmp_path / "made")).path


def test_usual_tokenizers_pass(model: Path) -> None:
    try_tokenizer(model / "tokenizer.json")
    try_tokenizer(give(model / "tokenizer.json", USUAL))


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("(q+)+k", r"cannot encode a text of 2,001 characters \(.*retry-limit"),
        ("(?:z|z){17}(?<=y)", "cannot encode texts of 2,000 characters within 1 s of processor time"),
        ("(", "is not a tokenizer: Oniguruma error"),
    ],
)
def test_an_import_refuses_a_hostile_one_and_names_it(model: Path, expression: str, reason: str) -> None:
    file = give(model / "tokenizer.json", expression)
    with pytest.raises(StageError, match=rf"(?s){file} is not a usable tokenizer.*{reason}"):
        try_tokenizer(file, encoding_cpu_s=1)


def test_nothing_is_imported_with_it(model: Path, tmp_path: Path) -> None:
    give(model / "tokenizer.json", "(a+)+$")
    with pytest.raises(StageError, match="is not a usable tokenizer"):
        run_stage(ImportModel(source=HuggingFaceDirectory(path=str(model))), {}, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))
