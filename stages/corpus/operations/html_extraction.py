"""Extracts the main text of a web page."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt

from stages.corpus.operations.operation import Apply, Draft, Drop, Operation
from stages.corpus.operations.text_repair import changed


class ExtractHtml(Operation):
    """Extracts the main text from HTML, without navigation, advertisements and other boilerplate (trafilatura)."""

    removes_markup: ClassVar[bool] = True

    operation: Literal["extract_html"] = "extract_html"
    favour: Literal["balance", "precision", "recall"] = "balance"  # precision: less boilerplate; recall: less lost text
    tables: bool = True
    comments: bool = False  # of the readers of the page
    formatting: bool = False  # headings, lists and emphasis as Markdown
    max_bytes: PositiveInt = 10_000_000  # of HTML; parsing needs many times that in memory

    def function(self) -> Apply:
        import logging

        import trafilatura

        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # pages without text are counted, not logged

        def apply(draft: Draft) -> Draft | Drop:
            size = len(draft.text.encode("utf-8", "replace"))
            if size > self.max_bytes:
                return Drop("html_too_large", size, self.max_bytes)
            text = trafilatura.extract(
                draft.text,
                url=draft.url or None,
                favor_precision=self.favour == "precision",
                favor_recall=self.favour == "recall",
                include_comments=self.comments,
                include_tables=self.tables,
                output_format="markdown" if self.formatting else "txt",
            )
            return changed(draft, text) if text else Drop("no_main_text", 0, 1)

        return apply
