"""Measures of repetition in a text, as in Gopher. Words are numbered, so that numpy counts their n-grams.

Shares are of the characters of the whole text (Rae et al. 2021, arXiv 2112.11446, section A1.1 and table A1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplication is invertible


def paragraphs(text: str) -> list[str]:
    return _PARAGRAPHS.split(text.strip())


def lines(text: str) -> list[str]:
    return _LINES.split(text)


def duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """The number of parts that occurred before, and their characters."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    number = characters = 0
    for part in parts:
        if part in seen:
            number += 1
            characters += len(part)
        else:
            seen.add(part)
    return number, characters


class WordGrams:
    """The word n-grams of one text. `words`: in order."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = numbered(words)
        self._ends = np.concatenate(([0], np.cumsum(np.array(list(map(len, words)), np.int64))))
        self._distinct_from = len(words) + 1  # all grams of at least this length are known to be distinct

    def most_frequent_characters(self, length: int) -> int:
        """Characters in all occurrences of the most frequent gram, with one space between words.

        Of equally frequent grams the first counts; where every gram occurs once, that is the text's first.
        """
        total = len(self._words) - length + 1
        if total < 1:
            return 0
        first, count = self._counted(length)
        best = first[count == count.max()].min()
        size = int(self._ends[best + length] - self._ends[best]) + length - 1
        return size * int(count.max())

    def repeated_characters(self, length: int, limit: float) -> int:
        """Characters in grams that occurred before. After a repeated gram, the search continues behind it.

        If an upper bound is at most `limit`, the bound is returned instead, since it is cheaper.
        """
        total = len(self._words) - length + 1
        if total < 1 or length >= self._distinct_from:
            return 0
        keys = np.sort(rolling_keys(self._words, length))
        if (keys[1:] != keys[:-1]).all():
            self._distinct_from = length
            return 0
        again = np.ones(total, bool)
        again[self._counted(length)[0]] = False  # all except the first occurrence of each
        touched = np.zeros(len(self._words) + 1, np.int64)
        places = np.flatnonzero(again)
        np.add.at(touched, places, 1)
        np.add.at(touched, places + length, -1)
        covered = np.cumsum(touched[:-1]) > 0
        bound = int(np.diff(self._ends)[covered].sum())
        return bound if bound <= limit else self._scan(length)

    def _scan(self, length: int) -> int:
        keys = rolling_keys(self._words, length).tolist()
        ends = self._ends.tolist()
        seen: set[int] = set()
        characters = place = 0
        while place < len(keys):
            if keys[place] in seen:
                characters += ends[place + length] - ends[place]
                place += length
            else:
                seen.add(keys[place])
                place += 1
        return characters

    def _counted(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The first position and the count of each distinct gram."""
        keys = rolling_keys(self._words, length)
        ordered = np.argsort(keys)
        sorted_keys = keys[ordered]
        start = np.flatnonzero(np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1])))
        return np.minimum.reduceat(ordered, start), np.diff(np.append(start, len(keys)))


def numbered(words: Sequence[str]) -> np.ndarray:
    """A number for each word, equal for equal words. uint64 [words]."""
    codes = {word: code for code, word in enumerate(dict.fromkeys(words))}
    return np.array(list(map(codes.__getitem__, words)), np.uint64)


def rolling_keys(codes: np.ndarray, length: int) -> np.ndarray:
    """A 64-bit key of every run of `length` codes (uint64). Distinct runs collide with a probability near 2^-64.

    The key is a polynomial in an odd number modulo 2^64, computed by doubling: the keys of two halves are combined.
    """
    if len(codes) < length:
        return np.zeros(0, np.uint64)
    keys, size = codes + np.uint64(1), 1
    for bit in bin(length)[3:]:
        keys, size = keys[: len(keys) - size] * _power(size) + keys[size:], 2 * size
        if bit == "1":
            keys, size = keys[: len(keys) - 1] * _MULTIPLIER + codes[size:] + np.uint64(1), size + 1
    return keys


@cache
def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(int(_MULTIPLIER), exponent, 1 << 64))


def counts_of(keys: np.ndarray) -> np.ndarray:
    """The counts of the distinct keys, in an arbitrary order."""
    ordered = np.sort(keys)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return np.diff(np.append(starts, len(ordered)))
