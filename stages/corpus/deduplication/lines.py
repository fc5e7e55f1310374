"""Template lines: menus, notices and headers that a source repeats over and over are taken out of its texts.

Which lines those are is known once every line is counted. Hashes are counted a part at a time, so that memory does not
grow with the corpus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt

from stages.corpus.deduplication.rule import Rule
from stages.corpus.drafts import Drafts, Measure
from stages.corpus.index import Cuts, Index, Judge, Ruling, nothing_told

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LINES = "lines.bin"
LINE = [("hash", "<u8"), ("row", "<u4"), ("start", "<u4"), ("stop", "<u4")]  # its place in bytes, end of line included
LINE_BYTES = 20
SORTED_BYTES = 32  # that counting takes for each line it holds


class LineHashes(Measure):
    """The hash and place of every line that is long enough, without the white space around it."""

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


class TemplateLines(Rule):
    """Lines of `min_characters` or more that a source holds `min_count` times or more: all of them are taken out."""

    rule: Literal["lines"] = "lines"
    sources: tuple[str, ...] = ()  # where to look, each on its own; none: in every source
    min_characters: NonNegativeInt = 15  # ROOTS' numbers; for newspapers it took every line seen twice (0 and 2)
    min_count: int = Field(default=10, ge=2)

    def judge(self, drafts: Drafts) -> Judge:
        folders, _ = drafts.measured(self.rule, LineHashes(min_characters=self.min_characters))
        shards: dict[str, list[int]] = defaultdict(list)
        for shard, source in enumerate(drafts.sources):
            if not self.sources or source in self.sources:
                shards[source].append(shard)

        def judge(index: Index, kept: np.ndarray) -> Ruling:
            import numpy as np

            found = [np.empty((0, 3), np.int64)]
            for members in shards.values():
                tables = [(_kept_lines(folders[shard], index, shard, kept), index.starts[shard]) for shard in members]
                repeated = _repeated([table for table, _ in tables], self.min_count, drafts.memory_bytes)
                for table, first_row in tables:
                    lines = table[_among(table["hash"], repeated)]
                    found.append(np.stack([lines["row"] + first_row, lines["start"], lines["stop"]], axis=1))
            rows, starts, stops = np.concatenate(found).astype(np.int64).T
            order = np.lexsort((starts, rows))
            cuts = Cuts(rows[order], starts[order], stops[order])
            return Ruling("deduplicate", self.rule, str(self.min_count), np.empty(0, np.int64), nothing_told, cuts)

        return judge


def _lines(text: str, min_characters: int) -> Iterator[tuple[int, int, int]]:
    start = 0
    for line in text.encode().splitlines(keepends=True):
        stripped = line.strip()
        if stripped and (len(stripped) >= min_characters) and len(stripped.decode()) >= min_characters:
            yield int.from_bytes(blake2b(stripped, digest_size=8).digest()), start, start + len(line)
        start += len(line)


def _kept_lines(folder: Path, index: Index, shard: int, kept: np.ndarray) -> np.ndarray:
    """The lines of a shard's documents that are still kept."""
    import numpy as np

    file = folder / LINES
    if not file.stat().st_size:
        return np.empty(0, LINE)
    table = np.memmap(file, LINE, "r")
    here = kept[index.starts[shard] : index.starts[shard + 1]]
    return table if here.all() else table[here[table["row"]]]


def _repeated(tables: list[np.ndarray], min_count: int, memory_bytes: int) -> np.ndarray:
    """The hashes that come `min_count` times or more, sorted."""
    import numpy as np

    total = sum(map(len, tables))
    bits = max((total * SORTED_BYTES // memory_bytes).bit_length(), 1)
    found = [np.empty(0, np.uint64)]
    for part in range(1 << bits):
        hashes = [table["hash"][table["hash"] >> np.uint64(64 - bits) == part] for table in tables]
        values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]), return_counts=True)
        found.append(values[counts >= min_count])
    return np.concatenate(found)


def _among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values (bool) are among the ordered ones."""
    import numpy as np

    if not len(ordered):
        return np.zeros(len(values), bool)
    found: np.ndarray = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return found
