"""The size of text under `xz -9e`, the compressor that a language model should beat."""

from __future__ import annotations

import lzma


def xz_bits(data: bytes) -> int:
    """Bits of `data` as an .xz file, its headers and check sum included."""
    return 8 * len(lzma.compress(data, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME))
