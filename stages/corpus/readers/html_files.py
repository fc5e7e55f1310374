"""Reads web pages from files: one document per file, the HTML as UTF-8. `extract_html` extracts its text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from stages.corpus.readers.file_systems import FilePart, FileReader, compressed, opened
from stages.corpus.readers.reader import Candidate, Part, too_long
from stages.corpus.readers.text_files import whole
from stages.corpus.readers.web_pages import utf8_page


class Html(FileReader):
    """Files of web pages."""

    kind: Literal["html"] = "html"

    def suffixes(self) -> tuple[str, ...]:
        return compressed(".html", ".htm", ".xhtml")

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, FilePart)
        with opened(part) as stream:
            data, size = whole(stream, max_bytes)
        if data is None:
            yield Candidate(b"", part.name, refused=too_long(size, max_bytes), refused_bytes=size)
        else:
            yield Candidate(utf8_page(data), part.name)
