"""The text of PDF files, which are hostile input: they are parsed by pypdf in a process that the kernel ends."""

from __future__ import annotations

from stages.base import StageError
from stages.corpus.extraction_process import ExtractionError, shared_process


def pdf_text(data: bytes, name: str, max_bytes: int, max_pages: int, cpu_s: int, memory_bytes: int) -> bytes:
    """The text of a PDF file as UTF-8, with a blank line between two pages.

    name: of the file, for messages. max_bytes: of the text. cpu_s: seconds of CPU time. memory_bytes: of the process.

    Raises StageError if the file is damaged or encrypted, exceeds a bound, or has no text.
    """
    options = {"max_pages": max_pages, "max_bytes": max_bytes}
    try:
        text = shared_process("pypdf").extract(data, options, cpu_s, memory_bytes)
    except ExtractionError as error:
        raise StageError(f"{name} cannot be read as PDF: {error}") from None
    if text is None:
        raise StageError(f"{name} has no text: its pages may be images, which need character recognition")
    return text.encode("utf-8", "replace")
