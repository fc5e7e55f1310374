"""The same page read twice: documents with one address, whatever its scheme, query and fragment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from stages.corpus.deduplication.exact import equal_keys
from stages.corpus.deduplication.rule import Rule
from stages.corpus.deduplication.shard_arrays import gathered, mapped
from stages.corpus.ingestion.document_index import Index, Judge, Ruling
from stages.corpus.ingestion.drafts import Drafts, Measure

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ADDRESSES = "addresses.bin"  # ">u8" a document; 0: it has none


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


class SameAddress(Rule):
    """Documents with the same host and path, as ROOTS compared the pages of its crawl."""

    rule: Literal["url"] = "url"

    def judge(self, drafts: Drafts) -> Judge:
        folders, _ = drafts.measured(self.rule, Addresses())

        def judge(index: Index, kept: np.ndarray) -> Ruling:
            import numpy as np

            keys = mapped([folder / ADDRESSES for folder in folders], index.starts, ">u8")
            known = np.concatenate([np.empty(0, bool), *(shard != 0 for shard in keys)])
            members = index.claim(np.flatnonzero(kept & known))
            return equal_keys(index, self.rule, members, [partial(gathered, keys, index.starts)], drafts)

        return judge


def host_and_path(url: str) -> str:
    """What of an address tells pages apart: "https://WWW.example.org:443/a/?q#f" -> "example.org/a"; "" if it has no
    host."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host = (parts.hostname or "").removeprefix("www.").rstrip(".")
    except ValueError:  # brackets that are no IPv6 address
        return ""
    return f"{host}{parts.path.rstrip('/')}" if host else ""
