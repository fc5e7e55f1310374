"""Small inputs for the corpus tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import zstandard

from stages.artifacts.corpus import Corpus, Document, Split
from stages.corpus.stage import IngestCorpus
from tests.support import RecordingContext, run_stage


def prose(number: int, words: int = 40) -> str:
    """A text like no other, of about 7 x `words` characters."""
    return " ".join(f"word{(number * 7919 + place * place) % 1000}" for place in range(words)) + f" end {number}."


def write_lines(path: Path, records: list[Any]) -> Path:
    """JSON Lines, compressed by the suffix. Bytes are written as they are."""
    data = b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = zstandard.ZstdCompressor().compress(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def ingest(directory: Path, *paths: Path | str, **fields: Any) -> tuple[Corpus, RecordingContext]:
    source = {"reader": "files", "paths": [str(path) for path in paths], **fields.pop("source", {})}
    values = {"validation_fraction": 0.2, **fields}
    return run_stage(IngestCorpus(source=source, **values), {}, directory)


def all_documents(corpus: Corpus) -> list[Document]:
    splits: tuple[Split, ...] = ("train", "validation")
    return [document for split in splits for document in corpus.documents(split)]


def small_corpus(directory: Path, documents: int = 60, words: int = 40) -> Corpus:
    """A corpus of `documents` texts of two sources."""
    records = [
        {"text": prose(number, words), "source": ["news", "books"][number % 2], "license": "CC0-1.0"}
        for number in range(documents)
    ]
    return ingest(directory, write_lines(directory / "texts.jsonl", records))[0]
