"""The statistics of a text that ROOTS' filters for web pages use (arXiv 2303.03915, section 3 and its code).

Words are separated by white space and stripped of special characters at both ends. For Chinese, ROOTS used the pieces
of a sentencepiece model; here, words are found by ICU's dictionaries. ROOTS measured the text after its modifiers.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Collection, Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from stages.corpus.statistics.repetition import counts_of, numbered, rolling_keys
from stages.corpus.statistics.segmentation import UNSPACED, segments

_WHITE_SPACE = "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u00a0\ufffc\u0084"
_MARKS = (
    "’“”–ー一▬…✦\ufffd£•€«»°·═×士＾˘⇓↓↑←→（）§″′´¿−±∈¢ø‚„½¼¾¹²³―⁃，ˌ¸‹›ʺˈʻ¦‐\u2800‰\u2011≤≥‖◆●■►▼▲▴∆▻¡★☆✱ːº。¯˜¥ɪ≈†上ン：∼⁄・♡✓⊕․．⋅÷１"
    "‟；،、¨ााी्े◦˚゜ʼ≖¤ッツシ℃√！【】‿∞➤～πه۩☛₨➩☻๑٪♥ıॽ《‘©﴿٬？▷Г♫∟™ª₪®「—❖」﴾》"
)
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


@cache
def special_characters() -> frozenset[str]:
    """ASCII punctuation, digits and white space, marks of many scripts, and every emoji of one character."""
    import emoji

    single = {symbol for symbol in emoji.EMOJI_DATA if len(symbol) == 1}
    return frozenset({*string.punctuation, *string.digits, *string.whitespace, *_WHITE_SPACE, *_MARKS, *single})


@cache
def _is_special() -> np.ndarray:
    """Whether each code point is special. bool [0x110000]."""
    found = np.zeros(0x110000, bool)
    found[[ord(character) for character in special_characters()]] = True
    return found


def stripped(word: str) -> str:
    """A word without special characters at its ends. str.strip would be slow with this number of characters."""
    special = special_characters()
    start, end = 0, len(word)
    while start < end and word[start] in special:
        start += 1
    while start < end and word[end - 1] in special:
        end -= 1
    return word[start:end]


def words(text: str, language: str = "") -> list[str]:
    """The words of a text, without special characters at their ends. `language`: a code of ROOTS' table."""
    if language in UNSPACED:
        return list(filter(None, map(stripped, segments(text, language))))
    special = special_characters()
    found = [
        stripped(word) if word[0] in special or word[-1] in special else word
        for word in text.replace("\n", " ").replace("\t", " ").split(" ")
        if word
    ]
    return [word for word in found if word]


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def character_repetition(text: str, length: int) -> float:
    """The share of the most frequent character n-grams in all n-grams.

    As many as the square root of the number of distinct n-grams are counted, without those that occur once.
    """
    keys = rolling_keys(_codes(text).astype(np.uint64), length)
    if not len(keys):
        return 0.0
    counts = counts_of(keys)
    repeated = counts[counts > 1]
    taken = min(math.isqrt(len(counts)), len(repeated))
    if not taken:
        return 0.0
    top = np.partition(repeated, len(repeated) - taken)[len(repeated) - taken :]
    return int(top.sum()) / len(keys)


def word_repetition(lowered: Sequence[str], length: int) -> float:
    """The share of word n-grams that occur more than once. `lowered`: the words in lower case."""
    keys = rolling_keys(numbered(lowered), length)
    if not len(keys):
        return 0.0
    counts = counts_of(keys)
    return int(counts[counts > 1].sum()) / len(keys)


def special_character_ratio(text: str) -> float:
    """The share of characters that are special."""
    return float(_is_special()[_codes(text)].mean()) if text else 0.0


def listed_ratio(lowered: Sequence[str], listed: Collection[str], joined_by: str | None) -> float:
    """The share of words that are listed, at most 1. `joined_by`: neighbours joined by this are looked up as well."""
    if not lowered:
        return 0.0
    found = sum(word in listed for word in lowered)
    if joined_by is not None:
        found += sum(f"{one}{joined_by}{two}" in listed for one, two in pairwise(lowered))
    return min(found / len(lowered), 1.0)


def uniform(text: str, *, keep_lines: bool) -> str:
    """Replace all white space by spaces and remove control characters. `keep_lines`: keep newlines."""
    kept = "\n" if keep_lines else ""
    spaces = {ord(space): " " for space in {*_WHITE_SPACE, *string.whitespace} - set(kept)}
    uniform = text.translate(spaces)
    if not keep_lines:
        return _CONTROLS.sub("", uniform).strip()
    return "\n".join(_CONTROLS.sub("", line) for line in uniform.split("\n")).strip()


def without_words(text: str, substrings: Sequence[str], longest: int | None) -> str:
    """The text without words that contain one of `substrings` or are longer than `longest` characters.

    Special characters at the ends of a word are ignored; adjacent separators become one.
    """

    unwanted = re.compile("|".join(map(re.escape, substrings))) if substrings else None

    def kept(word: str) -> bool:
        if unwanted and unwanted.search(word) and unwanted.search(stripped(word)):
            return False
        return longest is None or len(word) <= longest or 0 < len(stripped(word)) <= longest

    def line_of(line: str) -> str:
        parts = (" ".join(word for word in part.split(" ") if word and kept(word)) for part in line.split("\t"))
        return "\t".join(part for part in parts if part)

    return "\n".join(line for line in map(line_of, text.split("\n")) if line)
