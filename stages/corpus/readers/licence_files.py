"""Recognises the licence of a file in a source tree: by its SPDX tag, or by sentences that only one licence contains.

Only certain cases are named; other files get the label of the source ("unknown").
"""

from __future__ import annotations

import re
from pathlib import Path

HEAD_BYTES = 4096
TEXT_BYTES = 64 << 10  # of a licence file that are read
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|unlicense)([-._].*)?", re.IGNORECASE)
_TAG = re.compile(rb"SPDX-License-Identifier:\s*([A-Za-z0-9.+\-() ]{1,120}?)\s*(?:\*/|-->|[\r\n]|$)")

# Sentences, as lower-case words, that the text of a licence contains; the first entry that matches decides.
_SENTENCES = (
    ("AGPL-3.0", ("gnu affero general public license version 3",)),
    ("LGPL-3.0", ("gnu lesser general public license version 3",)),
    ("LGPL-2.1", ("gnu lesser general public license version 2 1",)),
    ("GPL-3.0", ("gnu general public license version 3",)),
    ("GPL-2.0", ("gnu general public license version 2",)),
    ("Apache-2.0", ("apache license version 2 0",)),
    ("MPL-2.0", ("mozilla public license version 2 0",)),
    ("EPL-2.0", ("eclipse public license v 2 0",)),
    ("CC0-1.0", ("cc0 1 0 universal",)),
    ("BSL-1.0", ("boost software license version 1 0",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("ISC", ("permission to use copy modify and or distribute this software for any purpose with or without fee",)),
    ("MIT", ("permission is hereby granted free of charge to any person obtaining a copy", "shall be included in all")),
    (
        "BSD-3-Clause",
        ("redistribution and use in source and binary forms", "neither the name", "endorse or promote products"),
    ),
    (
        "BSD-2-Clause",
        ("redistribution and use in source and binary forms", "redistributions in binary form must reproduce"),
    ),
)


def is_licence_file(name: str) -> bool:
    return LICENCE_FILE.fullmatch(name) is not None


def recognise(file: Path) -> str:
    """The SPDX identifier of the licence in a file; empty if it is not recognised."""
    try:
        if not file.is_file():  # opening a pipe would block
            return ""
        with file.open("rb") as stream:
            head = stream.read(TEXT_BYTES)
    except OSError:
        return ""
    if tag := declared_licence(head[:HEAD_BYTES]):
        return tag
    words = re.sub(r"[^a-z0-9]+", " ", head.decode("utf-8", "replace").lower())
    return next((name for name, sentences in _SENTENCES if all(sentence in words for sentence in sentences)), "")


def declared_licence(head: bytes) -> str:
    """The licence expression of a file's SPDX tag (spdx.dev/ids); empty without one."""
    found = _TAG.search(head)
    return found[1].decode("ascii").strip() if found else ""
