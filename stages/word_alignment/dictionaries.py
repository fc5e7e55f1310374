"""Bilingual dictionaries: pairs of words, and what of them two vocabularies hold."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from stages.base import External, StageError
from stages.word_alignment.texts import original, substituted

FILE_LIMIT_BYTES = 256 << 20  # uncompressed
Part = Literal["all", "train", "test"]


class Dictionary(External):
    """Pairs of a source and a target word, one a line, separated by a tab or spaces; plain or .gz, in UTF-8.

    `part`: all pairs, or those of the half of the source words that `in_part` assigns to training or to testing, so
    that one file serves both. In YAML, a path alone stands for all of its pairs.
    """

    path: Path
    part: Part = "all"

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        if not self.path.is_file():
            raise StageError(f"{self.path} is not a file: give the path of a dictionary, a pair of words a line")
        return hashlib.sha256(f"{digest_file(self.path)} {self.part}".encode()).hexdigest()

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of this part, in lower case, in the order of the file. Raises StageError if it cannot be read."""
        found = []
        size = number = 0
        try:
            with gzip.open(self.path, "rb") if self.path.suffix == ".gz" else self.path.open("rb") as file:
                while line := file.readline(FILE_LIMIT_BYTES):
                    number, size = number + 1, size + len(line)
                    if size > FILE_LIMIT_BYTES:
                        raise StageError(f"{self.path} is larger than {FILE_LIMIT_BYTES} bytes")
                    text = line.decode().rstrip("\r\n").lower()
                    words = text.split("\t") if "\t" in text else text.split()
                    if not text.strip():
                        continue
                    if len(words) != 2:
                        raise StageError(f"{self.path}, line {number}: expected two words, got {len(words)}")
                    source, target = (word.strip() for word in words)
                    if source and target and in_part(source, self.part):
                        found.append((source, target))
        except UnicodeDecodeError:
            raise StageError(f"{self.path}, line {number}: expected text in UTF-8") from None
        except (OSError, EOFError, zlib.error) as error:
            raise StageError(f"{self.path} cannot be read: {error}") from None
        return found


def in_part(source_word: str, part: Part) -> bool:
    """Whether a source word belongs to a part: its SHA-256 is even (train) or odd (test)."""
    return part == "all" or (hashlib.sha256(source_word.encode()).digest()[0] % 2 == 1) == (part == "test")


def known_pairs(
    pairs: Iterable[tuple[str, str]], source_words: Sequence[str], target_words: Sequence[str]
) -> dict[int, frozenset[int]]:
    """The indices of the translations of each source word, by its index, of pairs that both vocabularies hold."""
    sources = {word: place for place, word in enumerate(source_words)}
    targets = {word: place for place, word in enumerate(target_words)}
    found: dict[int, set[int]] = {}
    for source, target in pairs:
        if source in sources and target in targets:
            found.setdefault(sources[source], set()).add(targets[target])
    return {place: frozenset(found[place]) for place in sorted(found)}


def planted_pairs(source_words: Iterable[str], source_is_substituted: bool, part: Part) -> list[tuple[str, str]]:
    """The translations of words between a text and a substituted one, for the source words of a part."""
    translate = original if source_is_substituted else substituted
    return [(word, translate(word)) for word in source_words if in_part(word, part)]
