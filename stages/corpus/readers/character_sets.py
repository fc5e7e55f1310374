"""Converts a web page to UTF-8 from the encoding that it declares.

In the order of html.spec.whatwg.org, "determining the character encoding": a byte order mark, the protocol's header,
the page's <meta>, else UTF-8.
"""

from __future__ import annotations

import codecs
import re
from encodings.aliases import aliases

HEAD_BYTES = 4096
MARKS = ((codecs.BOM_UTF8, "utf_8"), (codecs.BOM_UTF16_LE, "utf_16_le"), (codecs.BOM_UTF16_BE, "utf_16_be"))
# Codecs that are not encodings of web pages: transformations, and one that exists on one system only.
NOT_ENCODINGS = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec", "mbcs"}
ENCODINGS = frozenset(aliases.values()) - NOT_ENCODINGS
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)


def to_utf8(page: bytes, declared: str = "") -> bytes:
    """The page in UTF-8; unchanged if it declares UTF-8 or an unknown encoding."""
    for mark, encoding in MARKS:
        if page.startswith(mark):
            return page[len(mark) :].decode(encoding, "replace").encode()
    named = declared
    if not named and (found := _META.search(page[:HEAD_BYTES])):
        named = found[1].decode("ascii")
    encoding = _known(named)
    if encoding in ("", "utf_8"):
        return page
    return page.decode(encoding, "replace").encode("utf-8", "replace")


def _known(label: str) -> str:
    """The codec for a label; empty if there is none."""
    normal = re.sub(r"[^a-z0-9]+", "_", label.strip().lower()).strip("_")
    codec = normal if normal in ENCODINGS else aliases.get(normal, "")
    if codec in ("latin_1", "iso8859_1", "ascii"):
        return "cp1252"  # as browsers do
    return codec if codec in ENCODINGS else ""
