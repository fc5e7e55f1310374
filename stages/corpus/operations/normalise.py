"""Gives equal texts equal characters (unicode.org/reports/tr15)."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Literal

from stages.corpus.operations.base import Apply, Draft, Operation


class Normalise(Operation):
    """Unicode normalisation."""

    operation: Literal["normalise"] = "normalise"
    form: Literal["NFC", "NFD", "NFKC", "NFKD"] = "NFC"

    def function(self) -> Apply:
        def apply(draft: Draft) -> Draft:
            if unicodedata.is_normalized(self.form, draft.text):
                return draft
            return replace(draft, text=unicodedata.normalize(self.form, draft.text))

        return apply
