"""The size of text compressed by `xz -9e`, which a language model should beat."""

from __future__ import annotations

import lzma


def xz_bits(data: bytes) -> int:
    """The size of `data` as an .xz file in bits, with headers and checksum."""
    return 8 * len(lzma.compress(data, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME))
