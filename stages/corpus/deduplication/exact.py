"""Exact duplicates: texts that are equal without white space, or without everything that is not a letter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.corpus.deduplication.rule import DeduplicationRule
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts, Measure, texts
from stages.corpus.ingestion.rule_decision import Decider, RuleDecision
from stages.corpus.ingestion.shard_arrays import gather_rows, memory_mapped
from stages.corpus.ingestion.spill import Spill, repeats

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

KEYS = "keys.bin"  # ">u8" [documents, 2]
GROUP = 1 << 18  # documents in memory at a time
Key = Callable[["np.ndarray"], "np.ndarray"]  # given rows: uint64 [rows]
Ignored = Literal["white_space", "digits_and_punctuation"]
_NO_LETTER = re.compile(r"[\W\d_]+")


class LetterKeys(Measure):
    """The hash of every draft's letters: ROOTS' key, which ignores white space, digits and punctuation."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        documents = 0
        with (folder / KEYS).open("wb") as file:
            for group in texts(drafts):
                for text in group:
                    letters = _NO_LETTER.sub("", text)
                    file.write(sha256((letters or text).encode()).digest()[:16])
                documents += len(group)
        return {"documents": documents}


class ExactDuplicates(DeduplicationRule):
    """Texts that are equal without white space, or without everything but letters (as ROOTS compared documents)."""

    rule: Literal["exact"] = "exact"
    ignore: Ignored = "white_space"

    def decider(self, drafts: Drafts) -> Decider:
        folders = None if self.ignore == "white_space" else drafts.measured(self.rule, LetterKeys())[0]

        def decide(index: DocumentIndex, kept: np.ndarray) -> RuleDecision:
            import numpy as np

            members = index.by_precedence(np.flatnonzero(kept))
            if folders is None:
                high, low = (partial(_of_table, index.table[name]) for name in ("key_high", "key_low"))
            else:
                keys = memory_mapped([folder / KEYS for folder in folders], index.starts, ">u8", (-1, 2))
                high, low = (
                    partial(gather_rows, [shard[:, column] for shard in keys], index.starts) for column in range(2)
                )
            return equal_keys(index, self.rule, members, (high, low), drafts)

        return decide


def equal_keys(
    index: DocumentIndex, rule: str, members: np.ndarray, keys: Sequence[Key], drafts: Drafts
) -> RuleDecision:
    """Drop all documents with the same key except the first one.

    `members`: rows by precedence. `keys`: the parts of a key; the first part distinguishes most documents.
    """
    import numpy as np

    rows, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    with ExitStack() as stack:
        spill = stack.enter_context(Spill(drafts.folder, drafts.memory_bytes // 2))
        for start in range(0, len(members), GROUP):
            some = members[start : start + GROUP]
            spill.add(keys[0](some), np.arange(start, start + len(some)))
        while len(spill):
            unlike = stack.enter_context(Spill(drafts.folder, drafts.memory_bytes // 2))
            for key, positions, firsts in repeats(spill):
                one, other = members[positions], members[firsts]
                same = np.ones(len(positions), bool)
                for more in keys[1:]:
                    same &= more(one) == more(other)
                rows.append(one[same])
                first.append(other[same])
                unlike.add(key[~same], positions[~same])
            spill.clear()
            spill = unlike
    stay = np.concatenate(first)
    return RuleDecision("deduplicate", rule, "", np.concatenate(rows), lambda positions: index.ids(stay[positions]))


def _of_table(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = column[rows]
    return found
