"""Keeps evaluation sets out of the corpus: finds documents that contain a passage of one.

A passage is a run of 13 words, compared without case and punctuation (as for GPT-3: Brown et al. 2020, arXiv
2005.14165, appendix C). An evaluation set is a number of JSON, JSON Lines or text files; every text in them counts, in
JSON every string. Texts with fewer words are not searched for, since they would match too much; they are counted.
"""

from __future__ import annotations

import glob
import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator

from stages.artifacts.manifest import Contamination
from stages.base import Config, External, StageError
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts, Measure, texts
from stages.corpus.ingestion.rule_decision import Decider, RuleDecision, merge_cuts, merge_intervals
from stages.corpus.ingestion.shard_arrays import is_in_sorted
from stages.corpus.readers.reader import digest_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

OPERATION, RULE = "decontaminate", "evaluation_set"
HITS = "hits.bin"
HIT = [("row", "<u4"), ("start", "<u8"), ("stop", "<u8"), ("gram", "<u8")]  # of a run: its bytes, and its hash
HITS_AT_A_TIME = 1 << 16
FILE_LIMIT_BYTES = 1 << 30
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}$")]


class EvaluationSet(External):
    """The files of one task, as globs: .json, .jsonl, .txt, each also with .gz."""

    paths: tuple[str, ...] = Field(min_length=1)
    fields: tuple[str, ...] = ()  # JSON members whose strings count, with everything below them; empty: all

    @field_validator("paths")
    @classmethod
    def _absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Path(path).expanduser().absolute()) for path in paths)  # workers run in other folders

    def files(self) -> list[Path]:
        """Raises StageError if a glob matches nothing."""
        found = []
        for pattern in self.paths:
            matches = [Path(path) for path in glob.glob(pattern, recursive=True) if Path(path).is_file()]
            if not matches:
                raise StageError(f"decontaminate: {pattern} matches no file: correct the path of the evaluation set")
            found += matches
        return sorted(set(found))

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        return digest_of([list(self.fields), sorted(digest_file(path) for path in self.files())])

    def texts(self) -> Iterator[str]:
        """Every text of the set. Raises StageError if a file does not have the format that its suffix names."""
        for path in self.files():
            yield from _texts_of(path, frozenset(self.fields))


class Decontaminate(Config):
    """Evaluation sets to keep out: documents that share a run of `words` with one are dropped, or the run is cut."""

    tasks: Mapping[TaskName, EvaluationSet] = Field(min_length=1)
    words: int = Field(default=13, ge=5, le=64)
    action: Literal["drop", "cut"] = "drop"

    def decider(self, drafts: Drafts) -> Decider:
        """The rule, ready to decide; measures the overlaps of the drafts. Raises StageError if a set cannot be read."""
        grams = {task: _grams(self.tasks[task], self.words) for task in sorted(self.tasks)}
        folders, _ = drafts.measured(OPERATION, Overlaps(tasks=self.tasks, words=self.words))

        def decide(index: DocumentIndex, kept: np.ndarray) -> RuleDecision:
            import numpy as np

            found: dict[int, list[str]] = defaultdict(list)
            cuts = []
            for folder, first in zip(folders, index.starts[:-1].tolist(), strict=True):
                for hits in _hits(folder / HITS):
                    rows = hits["row"].astype(np.int64) + first
                    hits, rows = hits[kept[rows]], rows[kept[rows]]
                    for task, runs in grams.items():
                        for row in np.unique(rows[is_in_sorted(hits["gram"], runs.hashes)]).tolist():
                            if task not in found[row]:  # found in another group of hits already
                                found[row].append(task)
                    if self.action == "cut":
                        cuts.append(
                            merge_intervals(rows, hits["start"].astype(np.int64), hits["stop"].astype(np.int64))
                        )
            contamination = {
                task: Contamination(
                    documents=sum(task in tasks for tasks in found.values()), texts=runs.texts, too_short=runs.too_short
                )
                for task, runs in grams.items()
            }
            dropped = np.array(sorted(found) if self.action == "drop" else [], np.int64)
            return RuleDecision(
                operation=OPERATION,
                rule=RULE,
                threshold=str(self.words),
                rows=dropped,
                values=lambda positions: [", ".join(sorted(found[row])) for row in dropped[positions].tolist()],
                cuts=merge_cuts(cuts),
                contamination=contamination,
            )

        return decide


def _hits(file: Path) -> Iterator[np.ndarray]:
    """The hits of a shard, HITS_AT_A_TIME in memory at a time."""
    import numpy as np

    size = file.stat().st_size
    step = HITS_AT_A_TIME * np.dtype(HIT).itemsize
    for start in range(0, size, step):
        yield np.fromfile(file, HIT, HITS_AT_A_TIME, offset=start)


class Overlaps(Measure):
    """Finds the runs of words that drafts share with evaluation sets."""

    tasks: Mapping[TaskName, EvaluationSet]
    words: PositiveInt

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        import numpy as np

        from stages.corpus.statistics.shingles import shingles

        wanted = np.unique(np.concatenate([_grams(task, self.words).hashes for task in self.tasks.values()]))
        first = hits = 0
        with (folder / HITS).open("wb") as file:
            for group in texts(drafts):
                found = shingles(group, self.words)
                positions = np.flatnonzero(is_in_sorted(found.hashes, wanted))
                table = np.empty(len(positions), HIT)
                of = found.text_of(positions)
                table["row"], table["gram"] = first + of, found.hashes[positions]
                for hit, text, (start, stop) in zip(table, of, found.characters(positions).tolist(), strict=True):
                    hit["start"] = len(group[text][:start].encode())
                    hit["stop"] = hit["start"] + len(group[text][start:stop].encode())
                table.tofile(file)
                first, hits = first + len(group), hits + len(table)
        return {"documents": first, "hits": hits}


@dataclass(frozen=True)
class _Grams:
    """The runs of words of an evaluation set."""

    hashes: np.ndarray  # uint64, sorted
    texts: int
    too_short: int  # texts that are shorter than a run


@lru_cache(maxsize=4096)
def _grams(task: EvaluationSet, words: int) -> _Grams:
    """All runs of `words` words of an evaluation set. Shorter texts have none."""
    import numpy as np

    from stages.corpus.statistics.shingles import shingles

    found, too_short = [np.empty(0, np.uint64)], 0
    for text in task.texts():
        length = len(shingles([text], 1).hashes)
        if length >= words:
            found.append(shingles([text], words).hashes)
        elif length:
            too_short += 1
    return _Grams(np.unique(np.concatenate(found)), texts=len(found) - 1 + too_short, too_short=too_short)


def _texts_of(path: Path, fields: frozenset[str]) -> Iterator[str]:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
        if len(data) > FILE_LIMIT_BYTES:
            raise StageError(f"{path} is larger than {FILE_LIMIT_BYTES} bytes: not an evaluation set")
        whole = data.decode("utf-8-sig")
        if kind == "json":
            yield from _strings(json.loads(whole), fields)
        elif kind == "jsonl":
            for line in whole.split("\n"):  # other line separators may be part of a text
                if line.strip():
                    yield from _strings(json.loads(line), fields)
        else:
            yield whole
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise StageError(
            f"{path} is not a readable evaluation set: {error}; expected JSON, JSON Lines or text"
        ) from None


def _strings(value: Any, fields: frozenset[str], wanted: bool = False) -> Iterator[str]:
    """Every string below a JSON value; with `fields`, only those below members with these names."""
    if isinstance(value, str):
        if wanted or not fields:
            yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _strings(member, fields, wanted or name in fields)
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member, fields, wanted)
