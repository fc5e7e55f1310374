"""Extracts the main text of a web page."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import PositiveInt

from stages.corpus.operations.operation import Apply, Draft, Drop, Operation
from stages.corpus.operations.text_repair import changed

# libxml2 compares each attribute of an element with all others: 90,000 of them take 20 s. What looks like an element
# within a script is not one. What this estimate misses meets the bound on time.
MAX_ATTRIBUTES = 2000
_LONG_TAG = re.compile(
    rf"<(script|style)\b[^>]*+>.*?(?:</\1|\Z)|<!--.*?(?:-->|\Z)|(<[a-z][^<>]{{{2 * MAX_ATTRIBUTES},}}+)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""[^\s"'/=]++(?:\s*+=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s"']*+))?+""")


class ExtractHtml(Operation):
    """Extracts the main text from HTML, without navigation, advertisements and other boilerplate (trafilatura).

    A page that takes more than `cpu_s` seconds, or on which the library fails, is dropped by a rule of that name.
    """

    version: ClassVar[str] = "2"  # pages are bounded in time

    removes_markup: ClassVar[bool] = True

    operation: Literal["extract_html"] = "extract_html"
    favour: Literal["balance", "precision", "recall"] = "balance"  # precision: less boilerplate; recall: less lost text
    tables: bool = True
    comments: bool = False  # of the readers of the page
    formatting: bool = False  # headings, lists and emphasis as Markdown
    max_bytes: PositiveInt = 10_000_000  # of HTML; parsing needs many times that in memory
    cpu_s: PositiveInt = 30  # of CPU time for one page; ordinary pages take hundredths of a second

    def function(self) -> Apply:
        from stages.corpus.extraction_process import ExtractionError, TooSlowError, shared_process

        process = shared_process("trafilatura")
        options = {
            "favor_precision": self.favour == "precision",
            "favor_recall": self.favour == "recall",
            "include_comments": self.comments,
            "include_tables": self.tables,
            "output_format": "markdown" if self.formatting else "txt",
        }

        def apply(draft: Draft) -> Draft | Drop:
            size = len(draft.text.encode("utf-8", "replace"))
            if size > self.max_bytes:
                return Drop("html_too_large", size, self.max_bytes)
            if (attributes := most_attributes(draft.text)) > MAX_ATTRIBUTES:
                return Drop("too_many_attributes", attributes, MAX_ATTRIBUTES)
            try:
                page = draft.text.encode("utf-8", "surrogatepass")
                text = process.extract(page, {**options, "url": draft.url or None}, self.cpu_s)
            except TooSlowError as error:
                return Drop("page_too_slow", str(error), self.cpu_s)
            except ExtractionError as error:
                return Drop("extraction_failed", str(error), "")
            return changed(draft, text) if text else Drop("no_main_text", 0, 1)

        return apply


def most_attributes(page: str) -> int:
    """The number of attributes of the element that has most of them; elements whose tag is short are not counted."""
    shortest = 2 * MAX_ATTRIBUTES
    if not any(len(piece) > shortest and not -1 < piece.find(">") < shortest for piece in page.split("<")):
        return 0
    tags = (found[2] for found in _LONG_TAG.finditer(page) if found[2])
    return max((sum(1 for _ in _ATTRIBUTE.finditer(tag)) - 1 for tag in tags), default=0)
