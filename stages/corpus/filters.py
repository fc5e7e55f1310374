"""What a text must be to enter the corpus, each rule with the name under which the manifest counts what it dropped."""

from __future__ import annotations

NOT_UTF8, NUL_CHARACTER, REPLACEMENT_CHARACTERS, TOO_SHORT = (
    "not_utf8",
    "nul_character",
    "replacement_characters",
    "too_short",
)
REPLACEMENT = "\ufffd"  # what decoders leave for bytes that they could not read


def decode(data: bytes, *, min_characters: int, max_replacement_ratio: float) -> tuple[str, None] | tuple[None, str]:
    """The text, or the reason to drop it. A kept text is exactly `data`: nothing is stripped or repaired."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None, NOT_UTF8
    if "\0" in text:
        return None, NUL_CHARACTER
    if text.count(REPLACEMENT) > max_replacement_ratio * len(text):
        return None, REPLACEMENT_CHARACTERS
    if len(text.strip()) < min_characters:
        return None, TOO_SHORT
    return text, None


def normalised(text: str) -> str:
    """What two duplicates have in common: everything but white space (as ROOTS compared code; arXiv 2303.03915)."""
    return "".join(text.split())
