"""Texts on their way to a terminal. What a model, a file name, a record or another machine says must not control it.

Every line that may hold such a text is printed by `say`, or is `clean` before it is drawn.
"""

from __future__ import annotations

import re
from typing import TextIO

# C0 and C1 controls (with ESC, which begins terminal sequences) and DEL, halves of characters, and the signs that
# change the direction of the text around them: a name can pretend to be another one with them.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LINE_BREAKS = re.compile(r"[\t\n\u2028\u2029]+")


def clean(text: str) -> str:
    """A text of one or several lines without control characters: each becomes a replacement character.

    Of a file name that is not UTF-8, the bytes that are not become replacement characters.
    """
    return UNSAFE.sub("�", text.replace("\r\n", "\n"))


def clean_line(text: str) -> str:
    """The same as one line, for a name or a title: line breaks and tabs become spaces."""
    return LINE_BREAKS.sub(" ", clean(text))


def indented(text: str, by: str = "  ") -> str:
    """A cleaned text below a line of ours. Its lines can't be taken for ours, which are not indented."""
    return "\n".join(f"{by}{clean_line(line)}" for line in text.strip("\n").splitlines())


def say(text: object, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a text and a line break."""
    print(clean(str(text)), file=file, flush=flush)
