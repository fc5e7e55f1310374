"""Small inputs for the corpus tests."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from stages.artifacts.corpus import Corpus, Document
from stages.artifacts.manifest import SPLITS
from stages.corpus.ingest import IngestCorpus
from tests.support import RecordingContext, run_stage, test_data

ENGLISH = "The committee will meet again next week to discuss what should be done about the old bridge. "
FRENCH = "Le comité se réunira de nouveau la semaine prochaine pour discuter de ce qu'il faut faire du vieux pont. "
HINDI = "समिति अगले सप्ताह फिर बैठक करेगी और पुराने पुल के बारे में चर्चा करेगी। "


def prose(number: int, words: int = 40) -> str:
    """A unique text of about 7 x `words` characters."""
    return " ".join(f"word{(number * 7919 + place * place) % 1000}" for place in range(words)) + f" end {number}."


def write_lines(path: Path, records: list[Any]) -> Path:
    """Writes JSON Lines, compressed as the suffix says. Bytes are written unchanged."""
    data = b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = zstandard.ZstdCompressor().compress(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of JSON Lines in gzip."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def source(*paths: Path | str, **fields: Any) -> dict[str, Any]:
    """A source of files."""
    reader = {"kind": "files", "paths": [str(path) for path in paths], **fields.pop("reader", {})}
    return {"reader": reader, **fields}


def ingest(directory: Path, *paths: Path | str, **fields: Any) -> tuple[Corpus, RecordingContext]:
    """A corpus of files, or of `sources`."""
    draw = fields.pop("draw", False)
    sources = fields.pop("sources", None) or {"files": source(*paths, **fields.pop("source", {}))}
    values = {"validation_fraction": 0.2, **fields}
    return run_stage(IngestCorpus(sources=sources, **values), {}, directory, draw=draw)


def all_documents(corpus: Corpus) -> list[Document]:
    return [document for split in SPLITS for document in corpus.documents(split)]


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file but the figures."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def small_corpus(directory: Path, documents: int = 60, words: int = 40) -> Corpus:
    """A corpus of `documents` texts of two sources."""
    sources = {}
    for place, name in enumerate(("news", "books")):
        records = [{"text": prose(number, words)} for number in range(place, documents, 2)]
        path = write_lines(directory / f"{name}.jsonl", records)
        sources[name] = source(path, license="CC0-1.0")
    return ingest(directory, sources=sources)[0]


SAMPLES = Path(__file__).parents[2] / "data"
# A test on the samples of this repository, and once more on the larger data where there is some.
SAMPLE_AND_FULL = pytest.mark.parametrize("size", ["sample", "full"])


def declarations(size: str = "sample") -> list[dict[str, Any]]:
    """The Universal Declaration of Human Rights in many languages: `code` and `text` of each."""
    full = size == "full"
    return read_lines(test_data("multilingual", "udhr.jsonl.gz") if full else SAMPLES / "udhr.jsonl.gz")


def declaration(code: str) -> str:
    """The sample of the declaration in one language, by the code of its translation."""
    return str(next(row["text"] for row in declarations() if row["code"] == code))
