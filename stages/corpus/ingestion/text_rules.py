"""What bytes must be to be a text, before the operations of their source, and a text to be kept, after them."""

from __future__ import annotations

from stages.base import Config
from stages.corpus.operations.operation import Drop

OPERATION = "text"  # the name under which the ledger knows these rules
_ASCII_WHITE_SPACE = bytes(code for code in range(128) if chr(code).isspace())
REPLACEMENT = "\ufffd"  # what decoders leave for bytes that they could not read


class TextRules(Config):
    """The bounds, by which every source is held."""

    min_characters: int
    max_bytes: int
    max_replacement_ratio: float


def decode(data: bytes, rules: TextRules) -> str | Drop:
    """The text, or why it is none. A text is exactly `data`: nothing is stripped or repaired."""
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
    """The bytes of a text that is to be kept, or why it is not."""
    if (length := len(text.strip())) < rules.min_characters:
        return Drop("too_short", length, rules.min_characters)
    try:
        return text.encode()
    except UnicodeEncodeError as error:  # an operation left half of a character
        return Drop("not_utf8", f"character {error.start}", "")


def normalised(data: bytes) -> bytes:
    """What two duplicates have in common: everything but white space (as ROOTS compared code; arXiv 2303.03915).

    `data` is UTF-8.
    """
    if data.isascii():
        return data.translate(None, _ASCII_WHITE_SPACE)
    return "".join(data.decode().split()).encode()
