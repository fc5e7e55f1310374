"""The same page read twice: documents whose addresses are equal without scheme, query and fragment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from stages.corpus.deduplication.exact import equal_keys
from stages.corpus.deduplication.rule import DeduplicationRule
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts, Measure
from stages.corpus.ingestion.rule_decision import Decider, RuleDecision
from stages.corpus.ingestion.shard_arrays import gather_rows, memory_mapped

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ADDRESSES = "addresses.bin"  # ">u8" [documents]; 0: the document has no address


class Addresses(Measure):
    """The hash of the address of every draft."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        documents = 0
        with (folder / ADDRESSES).open("wb") as file:
            for batch in drafts:
                for url in batch["url"].to_pylist():
                    place = host_and_path(url)
                    file.write(blake2b(place.encode("utf-8", "replace"), digest_size=8).digest() if place else bytes(8))
                documents += batch.num_rows
        return {"documents": documents}


class SameAddress(DeduplicationRule):
    """Documents with the same host and path, as ROOTS compared the pages of its crawl."""

    rule: Literal["url"] = "url"

    def decider(self, drafts: Drafts) -> Decider:
        folders, _ = drafts.measured(self.rule, Addresses())

        def decide(index: DocumentIndex, kept: np.ndarray) -> RuleDecision:
            import numpy as np

            keys = memory_mapped([folder / ADDRESSES for folder in folders], index.starts, ">u8")
            known = np.concatenate([np.empty(0, bool), *(shard != 0 for shard in keys)])
            members = index.by_precedence(np.flatnonzero(kept & known))
            return equal_keys(index, self.rule, members, [partial(gather_rows, keys, index.starts)], drafts)

        return decide


def host_and_path(url: str) -> str:
    """The part of an address that identifies a page: "https://WWW.example.org:443/a/?q#f" -> "example.org/a".

    Empty for an address without a host.
    """
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host = (parts.hostname or "").removeprefix("www.").rstrip(".")
    except ValueError:  # brackets around something other than an IPv6 address
        return ""
    return f"{host}{parts.path.rstrip('/')}" if host else ""
