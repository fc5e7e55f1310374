"""Template lines: removes menus, notices and headers that a source repeats from its texts.

Every line is counted by its hash first; the lines that are frequent enough are then cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt

from stages.corpus.deduplication.rule import DeduplicationRule
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts, Measure
from stages.corpus.ingestion.rule_decision import Cuts, Decider, RuleDecision, no_values
from stages.corpus.ingestion.shard_arrays import is_in_sorted
from stages.corpus.ingestion.spill import Spill, frequent

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LINES = "lines.bin"
LINE = [("hash", "<u8"), ("row", "<u4"), ("start", "<u4"), ("stop", "<u4")]  # bytes, line end included
LINE_BYTES = 20
LINES_AT_A_TIME = 1 << 18


class LineHashes(Measure):
    """The hash and the byte range of every line that is long enough without surrounding white space."""

    min_characters: NonNegativeInt

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        import numpy as np

        row = lines = 0
        with (folder / LINES).open("wb") as file:
            for batch in drafts:
                found: list[tuple[int, int, int, int]] = []
                for text in batch["text"].to_pylist():
                    found += [(hash_, row, start, stop) for hash_, start, stop in _lines(text, self.min_characters)]
                    row += 1
                np.array(found, LINE).tofile(file)
                lines += len(found)
        return {"lines": lines}


class TemplateLines(DeduplicationRule):
    """Lines of at least `min_characters` that a source contains at least `min_count` times: every occurrence is cut."""

    rule: Literal["lines"] = "lines"
    sources: tuple[str, ...] = ()  # the sources to clean, each counted separately; empty: all
    min_characters: NonNegativeInt = 15  # these are ROOTS' numbers; for newspapers ROOTS used 0 and 2
    min_count: int = Field(default=10, ge=2)

    def decider(self, drafts: Drafts) -> Decider:
        folders, _ = drafts.measured(self.rule, LineHashes(min_characters=self.min_characters))
        shards: dict[str, list[int]] = defaultdict(list)
        for shard, source in enumerate(drafts.sources):
            if not self.sources or source in self.sources:
                shards[source].append(shard)

        def decide(index: DocumentIndex, kept: np.ndarray) -> RuleDecision:
            import numpy as np

            found = [np.empty((0, 3), np.int64)]
            for members in shards.values():
                with Spill(drafts.folder, drafts.memory_bytes) as spill:
                    for table, _ in _kept_lines(folders, members, index, kept):
                        spill.add(table["hash"], np.zeros(len(table), np.int64))
                    repeated = np.concatenate([np.empty(0, np.uint64), *frequent(spill, self.min_count)])
                for table, first_row in _kept_lines(folders, members, index, kept):
                    lines = table[is_in_sorted(table["hash"], repeated)]
                    found.append(np.stack([lines["row"] + first_row, lines["start"], lines["stop"]], axis=1))
            rows, starts, stops = np.concatenate(found).astype(np.int64).T
            order = np.lexsort((starts, rows))
            cuts = Cuts(rows[order], starts[order], stops[order])
            return RuleDecision("deduplicate", self.rule, str(self.min_count), np.empty(0, np.int64), no_values, cuts)

        return decide


def _lines(text: str, min_characters: int) -> Iterator[tuple[int, int, int]]:
    start = 0
    for line in text.encode().splitlines(keepends=True):
        stripped = line.strip()
        if stripped and (len(stripped) >= min_characters) and len(stripped.decode()) >= min_characters:
            yield int.from_bytes(blake2b(stripped, digest_size=8).digest()), start, start + len(line)
        start += len(line)


def _kept_lines(
    folders: Sequence[Path], shards: Sequence[int], index: DocumentIndex, kept: np.ndarray
) -> Iterator[tuple[np.ndarray, int]]:
    """The lines of the documents that are still kept, LINES_AT_A_TIME in memory, with the first row of their shard."""
    import numpy as np

    for shard in shards:
        file, start = folders[shard] / LINES, int(index.starts[shard])
        for place in range(0, file.stat().st_size, LINE_BYTES * LINES_AT_A_TIME):
            table = np.fromfile(file, LINE, LINES_AT_A_TIME, offset=place)
            yield table[kept[table["row"] + start]], start
