"""Datasets that the library `datasets` saved to disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.base import StageError
from stages.corpus.readers.datasets import Datasets
from tests.stages.corpus.readers.support import digest_file, read, saved_dataset


def test_datasets_saved_to_disk(tmp_path: Path) -> None:
    saved_dataset(tmp_path / "one", ["a", "b", "c"])
    for split in ("train", "test"):
        saved_dataset(tmp_path / "both" / split, [f"{split} text"], files=1)
    (tmp_path / "both" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert [c.data for c in read(Datasets(paths=[str(tmp_path / "one")]))] == [b"a", b"c", b"b"]
    assert [c.data for c in read(Datasets(paths=[str(tmp_path / "both")]))] == [b"train text", b"test text"]
    only = Datasets(paths=[str(tmp_path / "both")], splits=["test"])
    assert [c.data for c in read(only)] == [b"test text"]
    assert only.digest(digest_file) != Datasets(paths=[str(tmp_path / "both")]).digest(digest_file)
    with pytest.raises(StageError, match="has no split dev; expected some of train, test"):
        read(Datasets(paths=[str(tmp_path / "both")], splits=["dev"]))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_data_files": [{"filename": "../../etc/passwd"}]}, "expected the name of a file in this folder"),
        ({"_data_files": [{"filename": "gone.arrow"}]}, "lists gone.arrow, which does not exist"),
        ({"_data_files": [], "_indices_data_files": [{}]}, "flatten_indices"),
        ([], "is not the description of a dataset"),
        ({"_data_files": []}, "lists no Arrow file"),
        (None, "has neither state.json nor dataset_dict.json"),
    ],
)
def test_a_garbled_dataset_is_refused(tmp_path: Path, state: object, message: str) -> None:
    (tmp_path / "d").mkdir()
    if state is not None:
        (tmp_path / "d" / "state.json").write_text(json.dumps(state))
    with pytest.raises(StageError, match=message):
        read(Datasets(paths=[str(tmp_path / "d")]))


def test_a_truncated_arrow_file_is_a_clear_error(tmp_path: Path) -> None:
    saved_dataset(tmp_path / "d", ["text"] * 50, files=1)
    file = next((tmp_path / "d").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(StageError, match="is not a readable Arrow file"):
        read(Datasets(paths=[str(tmp_path / "d")]))
