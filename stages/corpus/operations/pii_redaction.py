"""Replaces personal data and credentials in place (ROOTS: arXiv 2303.03915, section 3.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from stages.corpus.operations.operation import Apply, Draft, Operation

KindName = Literal["EMAIL", "USER", "IP_ADDRESS", "KEY", "PHONE", "IBAN"]


class RedactPii(Operation):
    """Replaces e-mail addresses, @names, IP addresses and keys in place, and counts them.

    PHONE and IBAN are found on demand. An e-mail address is also found where "@" is written as "%40", "=40", "[at]" or
    " at ". Only whole strings are replaced, not parts of words. Dates, versions, ISBNs, loopback addresses and netmasks
    are kept. For code, omit USER: decorators look like names.
    """

    version: ClassVar[str] = "3"

    operation: Literal["redact_pii"] = "redact_pii"
    kinds: tuple[KindName, ...] = Field(default=("EMAIL", "USER", "IP_ADDRESS", "KEY"), min_length=1)
    replacement: str = Field(
        default="PI:{kind}", pattern=r"^[^@{}]*(\{kind\}[^@{}]*)?$"
    )  # "{kind}" stands for the kind
    public_addresses_only: bool = False  # keep addresses of private networks and documentation
    # The country (ISO 3166: "FR") of telephone numbers without a country code; empty: only numbers with one are found.
    phone_region: str = Field(default="", pattern="^([A-Z]{2})?$")

    def function(self) -> Apply:
        from stages.corpus.statistics.pii_patterns import find

        kinds, public, region = self.kinds, self.public_addresses_only, self.phone_region
        written = {kind: self.replacement.format(kind=kind) for kind in kinds}

        def apply(draft: Draft) -> Draft:
            found = find(draft.text, kinds, public, region)
            if not found:
                return draft
            pieces: list[str] = []
            counts = dict(draft.counts)
            end = 0
            for kind, start, stop in found:
                pieces += (draft.text[end:start], written[kind])
                end = stop
                counts[f"pii_{kind.lower()}"] = counts.get(f"pii_{kind.lower()}", 0) + 1
            return replace(draft, text="".join((*pieces, draft.text[end:])), counts=counts)

        return apply
