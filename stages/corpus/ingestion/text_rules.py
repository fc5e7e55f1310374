"""Bounds that every text must meet: as bytes before the operations of its source, and as a text after them."""

from __future__ import annotations

from stages.base import Config
from stages.corpus.operations.operation import Drop

OPERATION = "text"  # the name of these rules in the ledger
_ASCII_WHITE_SPACE = bytes(code for code in range(128) if chr(code).isspace())
REPLACEMENT = "\ufffd"  # what decoders write for bytes that they cannot decode


class TextRules(Config):
    """The bounds, the same for every source."""

    min_characters: int
    max_bytes: int  # of a text after the operations
    max_raw_bytes: int  # as read
    max_replacement_ratio: float


def decode(data: bytes, rules: TextRules) -> str | Drop:
    """The text, or why it is dropped. A text is exactly `data`: nothing is stripped or repaired."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Drop("not_utf8", f"byte {error.start}", "")
    if "\0" in text:
        return Drop("nul_character", text.count("\0"), 0)
    if (ratio := text.count(REPLACEMENT) / max(len(text), 1)) > rules.max_replacement_ratio:
        return Drop("replacement_characters", ratio, rules.max_replacement_ratio)
    return text


def encode(text: str, rules: TextRules) -> bytes | Drop:
    """The bytes of a text that is to be kept, or why it is dropped."""
    if (length := len(text.strip())) < rules.min_characters:
        return Drop("too_short", length, rules.min_characters)
    try:
        data = text.encode()
    except UnicodeEncodeError as error:  # an operation left a lone surrogate
        return Drop("not_utf8", f"character {error.start}", "")
    return data if len(data) <= rules.max_bytes else Drop("too_long", len(data), rules.max_bytes)


def normalised(data: bytes) -> bytes:
    """UTF-8 without white space, which exact duplicates share (as ROOTS compared code; arXiv 2303.03915)."""
    if data.isascii():
        return data.translate(None, _ASCII_WHITE_SPACE)
    return "".join(data.decode().split()).encode()
