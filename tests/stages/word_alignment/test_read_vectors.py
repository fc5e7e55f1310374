"""Files of word vectors: what every format reads, what is skipped and counted, and what is refused by line."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from stages.base import StageError
from stages.word_alignment.read_vectors import read

WORDS = ["the", "house", "naïve", "new york"]
VECTORS = np.array([[1, 2, 3], [-1, 0.5, 2e-3], [4, 5, 6], [0, 0, 1]], np.float32)


def text(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


ROWS = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, VECTORS.tolist(), strict=True)]


def binary(words: list[str], vectors: np.ndarray, announced: int | None = None, newlines: bool = True) -> bytes:
    head = f"{len(words) if announced is None else announced} {vectors.shape[1]}\n".encode()
    end = b"\n" if newlines else b""
    return head + b"".join(
        word.encode() + b" " + row.astype("<f4").tobytes() + end for word, row in zip(words, vectors, strict=True)
    )


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def refusal(path: Path, data: bytes, limit: int = 100) -> str:
    with pytest.raises(StageError) as caught:
        read(write(path, data), limit)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.vec", text("4 3", *ROWS)),
        ("a.vec.gz", text("4 3", *ROWS)),
        ("a.txt", text(*ROWS)),  # GloVe's: no header, so the first word has no space
        ("a.vec", text("4 3", *(f"{row} " for row in ROWS))),  # fastText ends rows with a space
        ("a.bin", binary([*WORDS[:3], "newyork"], VECTORS)),
        ("a.bin", binary([*WORDS[:3], "newyork"], VECTORS, newlines=False)),
    ],
)
def test_every_format_reads_the_same(tmp_path: Path, name: str, data: bytes) -> None:
    loaded = read(write(tmp_path / name, data), 100)
    assert [word.replace(" ", "") for word in loaded.words] == ["the", "house", "naïve", "newyork"]
    assert loaded.vectors.dtype == np.float32
    np.testing.assert_array_equal(loaded.vectors, VECTORS)


def test_safetensors_with_its_word_list(tmp_path: Path) -> None:
    save_file({"vectors": VECTORS}, tmp_path / "a.safetensors")
    (tmp_path / "a.words.txt").write_text("\n".join(WORDS) + "\n")
    loaded = read(tmp_path / "a.safetensors", 100)
    assert loaded.words == WORDS
    np.testing.assert_array_equal(loaded.vectors, VECTORS)
    (tmp_path / "a.words.txt").write_text("\n".join(WORDS[:3]) + "\n")
    with pytest.raises(StageError, match=r"has 3 words, but a\.safetensors has 4 rows"):
        read(tmp_path / "a.safetensors", 100)
    (tmp_path / "a.words.txt").write_text("\n".join([*WORDS, "more"]) + "\n")
    with pytest.raises(StageError, match=r"line 5: a\.safetensors has 4 rows only"):
        read(tmp_path / "a.safetensors", 100)


def test_repeated_and_missing_words_are_counted(tmp_path: Path) -> None:
    rows = ["5 2", "a 1 2", "b 3 4", "a 5 6", " 7 8", "c 9 1"]
    loaded = read(write(tmp_path / "a.vec", text(*rows)), 100)
    assert (loaded.words, loaded.duplicates, loaded.nameless) == (["a", "b", "c"], 1, 1)
    np.testing.assert_array_equal(loaded.vectors, [[1, 2], [3, 4], [9, 1]])


def test_the_limit_stops_before_what_follows(tmp_path: Path) -> None:
    loaded = read(write(tmp_path / "a.vec", text("1000000000000 2", "a 1 2", "b 3 4", "not a row")), 2)
    assert loaded.words == ["a", "b"]
    loaded = read(write(tmp_path / "a.bin", binary(["a", "b"], VECTORS[:2], announced=10**12)), 2)
    assert loaded.words == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2 2", "a 1 2", "b 3"], "line 3: expected a word and 2 numbers, got 1 numbers"),
        (["2 2", "a 1 2", "b 3 4 5"], "line 3: expected a word and 2 numbers, got more numbers"),
        (["2 2", "a 1 2", "b nan 4"], "line 3: the vector of 'b' has a value that is not finite"),
        (["2 2", "a 1 2", "b 1e999 4"], "line 3: the vector of 'b' has a value that is not finite"),
        (["2 2", "a 1 x"], "line 2: expected a word and 2 numbers"),
        (["3 2", "a 1 2", "b 3 4"], "line 1: announces 3 words, but the file has 2"),
        (["1 2", "a 1 2", "b 3 4"], "line 3: line 1 announces 1 words, but there are more"),
        (["2 0", "a", "b"], "line 1: announces 2 words of 0 dimensions"),
        (["2 99999999", "a 1"], "line 1: announces 2 words of 99999999 dimensions"),
        (["word"], "line 1: expected a word and 1 to 8192 numbers"),
        ([], "holds no word vectors"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, rows: list[str], message: str) -> None:
    assert message in refusal(tmp_path / "a.vec", text(*rows))


def test_binary_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    assert "row 3: the file ends here, but line 1 announces 9 words" in refusal(
        path, binary(["a", "b"], VECTORS[:2], announced=9)
    )
    assert "there is more after them" in refusal(path, binary(["a", "b"], VECTORS[:2], announced=1))
    assert "a fastText model" in refusal(path, struct.pack("<ii", 793712314, 12) + bytes(100))
    assert "expected a first line" in refusal(path, b"\x80\x04 a pickle, say")
    assert "a word is longer" in refusal(path, b"1 2\n" + b"x" * 10_000)
    bad = VECTORS[:1].copy()
    bad[0, 1] = np.nan
    assert "row 1: the vector of 'a'" in refusal(path, binary(["a"], bad))


def test_other_refusals(tmp_path: Path) -> None:
    assert "line 1: longer than" in refusal(tmp_path / "a.vec", b"x" * (1 << 20))
    assert "in UTF-8" in refusal(tmp_path / "a.vec", b"1 1\n\xff\xfe 1\n")
    assert "expected a name that ends with" in refusal(tmp_path / "a.pkl", b"")
    assert "not a safetensors file" in refusal(tmp_path / "a.safetensors", b"garbage" * 10)
    (tmp_path / "b.vec.gz").write_bytes(b"not gzip")
    with pytest.raises(StageError, match="cannot be read"):
        read(tmp_path / "b.vec.gz", 1)


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".vec", ".bin", ".safetensors", ".txt.gz"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(data)
    try:
        loaded = read(path, 10)
    except StageError:
        return
    assert len(loaded.words) == len(loaded.vectors) > 0
    assert np.isfinite(loaded.vectors).all()
