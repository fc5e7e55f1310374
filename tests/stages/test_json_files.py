import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from stages.base import ArtifactError
from stages.json_files import read_json


class Facts(BaseModel):
    words: int


class Description(BaseModel):
    facts: Facts


def read(path: Path) -> Description:
    return read_json(path, Description, "a description of words", limit_bytes=100)


def test_a_file_that_fits_is_its_model(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({"facts": {"words": 3}}))
    assert read(path) == Description(facts=Facts(words=3))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"facts": {"words": "many"}}', r"is not a description of words: facts\.words: .*integer"),
        (b"[]", r"is not a description of words: the whole file: "),
        (b'{"facts": {"wor', r"is not a description of words: the whole file: Invalid JSON"),
        (b"\xff\xfe{}", r"is not a description of words: the whole file: Invalid JSON"),
        (b"[" * 99, r"is not a description of words: the whole file: Invalid JSON"),
        (b" " * 101, r"is larger than 100 bytes: not a description of words"),
    ],
)
def test_any_other_file_is_named_with_what_was_expected(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"facts\.json {expected}"):
        read(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"facts\.json cannot be read: No such file or directory"):
        read(tmp_path / "facts.json")
