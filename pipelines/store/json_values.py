"""Values that JSON carries there and back unchanged, which is what records and the spool hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any

LONGEST_INTEGER_BITS = 4096  # Python refuses to read an integer of more than 4,300 digits


def text(value: str) -> str:
    """A text that UTF-8 can hold: U+FFFD replaces the surrogates with which Python names undecodable bytes."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(value: Any) -> Any:
    """Any value as one that JSON carries there and back: what it has no form for becomes a text.

    Keys become texts, numbers and arrays of NumPy and torch become Python's, and an integer beyond 4,096 bits becomes
    an infinity. NaN and infinities stay: Python and pydantic write them as constants.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= LONGEST_INTEGER_BITS else math.copysign(math.inf, value > 0 or -1)
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Set):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # a number or an array of NumPy or torch, neither of which is imported for its sake
        return plain(value.tolist())
    return text(str(value))
