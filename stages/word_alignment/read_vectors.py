"""Reads files of word vectors: text (.vec, .txt; plain or .gz), word2vec binary (.bin), and safetensors (.safetensors).

Nothing read is trusted: sizes are bounded, values are checked, and nothing is unpickled. Words that occur again, and
rows without a word, are skipped and counted; what cannot be right is refused with the number of its line or row.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from stages.base import StageError
from stages.word_alignment.linear import Array
from stages.word_alignment.vector_file import word_list

DIMENSION_LIMIT = 8192
WORD_LIMIT_BYTES = 4096
LINE_LIMIT_BYTES = 32 * DIMENSION_LIMIT + WORD_LIMIT_BYTES
HEADER_LIMIT_BYTES = 100
FASTTEXT_MODEL = (793712314).to_bytes(4, "little")  # how fastText's own .bin begins, which is another format
TENSOR = "vectors"
BLOCK_ROWS = 16_384
TEXT_SUFFIXES = (".vec", ".txt", ".vec.gz", ".txt.gz")


@dataclass(frozen=True)
class Loaded:
    """What was read: distinct words, their vectors [n, d] in float32, and how many rows were skipped, by reason."""

    words: list[str]
    vectors: Array
    duplicates: int
    nameless: int


def read(path: Path, limit: int) -> Loaded:
    """The first `limit` distinct words of a file. Raises StageError where it is not what its suffix says."""
    name = path.name.lower()
    try:
        if name.endswith(TEXT_SUFFIXES):
            return _read_text(path, limit)
        if name.endswith(".bin"):
            return _read_binary(path, limit)
        if name.endswith(".safetensors"):
            return _read_safetensors(path, limit)
    except (OSError, EOFError, zlib.error) as error:
        raise StageError(f"{path} cannot be read: {error}") from None
    raise StageError(f"{path}: expected a name that ends with .vec, .txt (or those with .gz), .bin or .safetensors")


class _Rows:
    """Collects rows up to a limit, each checked. `place` names where a row is, for messages."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._index: dict[str, None] = {}
        self._blocks: list[Array] = []
        self._used = 0
        self._duplicates = self._nameless = 0

    @property
    def full(self) -> bool:
        return len(self._index) == self._limit

    def add(self, word: str, values: Array, place: str) -> None:
        if not np.isfinite(values).all():
            raise StageError(f"{self._path}, {place}: the vector of {word!r} has a value that is not finite")
        if not word or word.isspace():
            self._nameless += 1
            return
        if word in self._index:
            self._duplicates += 1
            return
        self._index[word] = None
        if not self._blocks or self._used == len(self._blocks[-1]):
            self._blocks.append(np.empty((min(BLOCK_ROWS, self._limit), len(values)), np.float32))
            self._used = 0
        self._blocks[-1][self._used] = values
        self._used += 1

    def loaded(self) -> Loaded:
        if not self._index:
            raise StageError(f"{self._path} holds no word vectors")
        vectors = np.concatenate([*self._blocks[:-1], self._blocks[-1][: self._used]])
        return Loaded(list(self._index), vectors, self._duplicates, self._nameless)


def _header(path: Path, line: bytes) -> tuple[int, int] | None:
    """The numbers of words and dimensions of a first line that has these two alone."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() and len(part) < 20 for part in parts):
        return None
    words, dimensions = map(int, parts)
    if not words or not 0 < dimensions <= DIMENSION_LIMIT:
        raise StageError(
            f"{path}, line 1: announces {words} words of {dimensions} dimensions; expected at least one word and "
            f"1 to {DIMENSION_LIMIT} dimensions"
        )
    return words, dimensions


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as file:
        number = 0
        while line := file.readline(LINE_LIMIT_BYTES + 1):
            number += 1
            if len(line) > LINE_LIMIT_BYTES:
                raise StageError(f"{path}, line {number}: longer than {LINE_LIMIT_BYTES} bytes: not a word vector")
            yield number, line


def _read_text(path: Path, limit: int) -> Loaded:
    rows = _Rows(path, limit)
    announced, dimensions, read_rows = None, 0, 0
    for number, line in _lines(path):
        if number == 1 and (header := _header(path, line)):
            announced, dimensions = header
            continue
        parts = line.rstrip(b"\r\n ").split(b" ")
        if not dimensions:
            dimensions = len(parts) - 1
            if not 0 < dimensions <= DIMENSION_LIMIT:
                raise StageError(f"{path}, line {number}: expected a word and 1 to {DIMENSION_LIMIT} numbers")
        if len(parts) <= dimensions:
            raise StageError(
                f"{path}, line {number}: expected a word and {dimensions} numbers, got {len(parts) - 1} numbers"
            )
        try:
            values = np.array(parts[-dimensions:], dtype=np.float64)
            word = b" ".join(parts[:-dimensions]).decode()
        except UnicodeDecodeError:
            raise StageError(f"{path}, line {number}: expected a word in UTF-8") from None
        except ValueError:
            raise StageError(f"{path}, line {number}: expected a word and {dimensions} numbers") from None
        if len(parts) > dimensions + 1 and _number(parts[-dimensions - 1]):
            raise StageError(f"{path}, line {number}: expected a word and {dimensions} numbers, got more numbers")
        rows.add(word, values, f"line {number}")
        read_rows += 1
        if rows.full:
            return rows.loaded()
        if announced is not None and read_rows > announced:
            raise StageError(f"{path}, line {number}: line 1 announces {announced} words, but there are more")
    if announced is not None and read_rows < announced:
        raise StageError(f"{path}, line 1: announces {announced} words, but the file has {read_rows}")
    return rows.loaded()


def _number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_binary(path: Path, limit: int) -> Loaded:
    rows = _Rows(path, limit)
    with path.open("rb") as file:
        first = file.readline(HEADER_LIMIT_BYTES)
        if first.startswith(FASTTEXT_MODEL):
            raise StageError(f"{path} is a fastText model, not word2vec's binary format: give fastText's .vec file")
        header = _header(path, first)
        if header is None:
            raise StageError(f"{path}: expected a first line with the numbers of words and dimensions (word2vec)")
        announced, dimensions = header
        for row in range(1, announced + 1):
            word = _binary_word(file, path, row)
            data = file.read(4 * dimensions)
            if len(data) < 4 * dimensions:
                raise StageError(f"{path}, row {row}: the file ends here, but line 1 announces {announced} words")
            rows.add(word, np.frombuffer(data, "<f4"), f"row {row}")
            if rows.full:
                return rows.loaded()
        if file.read(2).strip():
            raise StageError(f"{path}: line 1 announces {announced} words, but there is more after them")
    return rows.loaded()


def _binary_word(file: BinaryIO, path: Path, row: int) -> str:
    """The bytes up to a space; a line end before them belongs to the row before."""
    word = bytearray()
    while (byte := file.read(1)) not in (b" ", b""):
        if byte != b"\n" or word:
            word += byte
        if len(word) > WORD_LIMIT_BYTES:
            raise StageError(f"{path}, row {row}: a word is longer than {WORD_LIMIT_BYTES} bytes")
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise StageError(f"{path}, row {row}: expected a word in UTF-8") from None


def _read_safetensors(path: Path, limit: int) -> Loaded:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if TENSOR not in file.keys():  # noqa: SIM118 - the file is not a mapping
                raise StageError(f"{path} has no tensor {TENSOR!r}")
            shape = file.get_slice(TENSOR).get_shape()
            if len(shape) != 2 or not 0 < shape[1] <= DIMENSION_LIMIT:
                raise StageError(f"{path}: {TENSOR!r} has shape {shape}; expected [words, 1 to {DIMENSION_LIMIT}]")
            return _named_rows(path, file.get_slice(TENSOR), shape[0], limit)
    except SafetensorError as error:
        raise StageError(f"{path} is not a safetensors file: {error}") from None


def _named_rows(path: Path, tensor: Any, count: int, limit: int) -> Loaded:
    """Rows of a tensor in a file, read block by block, with the words of the list that belongs to it."""
    rows = _Rows(path, limit)
    names, number = word_list(path), 0
    block = np.empty(0, np.float32)
    for number, line in _lines(names):
        if number > count:
            raise StageError(f"{names}, line {number}: {path.name} has {count} rows only")
        try:
            word = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise StageError(f"{names}, line {number}: expected a word in UTF-8") from None
        place = (number - 1) % BLOCK_ROWS
        if place == 0:
            block = tensor[number - 1 : min(number - 1 + BLOCK_ROWS, count)]
            if block.dtype.kind != "f":
                raise StageError(f"{path}: {TENSOR!r} is of type {block.dtype}; expected floating-point numbers")
        rows.add(word, block[place], f"row {number}")
        if rows.full:
            return rows.loaded()
    if number < count:
        raise StageError(f"{names} has {number} words, but {path.name} has {count} rows")
    return rows.loaded()
