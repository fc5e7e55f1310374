"""Files as people keep them: every format by suffix, and what cannot be read is named."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stages.base import StageError
from stages.corpus.readers.documents import Documents
from tests.stages.corpus.examples import all_documents, ingest, prose
from tests.stages.corpus.operations.test_html_extraction import PAGE
from tests.stages.corpus.readers.pdf import bomb, pdf
from tests.stages.corpus.readers.test_bad_files import read, refusals, texts

SENTENCE = "It was a bright cold day in April, and the clocks of the town were striking thirteen."


def reader(folder: Path, **fields: object) -> Documents:
    return Documents.model_validate({"paths": str(folder), "bad_files": "drop", **fields})


def reasons(folder: Path, **fields: object) -> dict[str, str]:
    found = read(reader(folder, **fields), 100_000)
    return {each.path: str(each.refused.value) for each in found if each.refused is not None}


def test_every_format_is_read_by_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCE)
    (tmp_path / "b.md").write_text(f"# Title\n\n{SENTENCE}")
    (tmp_path / "c.HTML").write_text(PAGE)
    (tmp_path / "d.pdf").write_bytes(pdf([SENTENCE, "The second page."]))
    (tmp_path / "e.jsonl").write_text(json.dumps({"text": SENTENCE}) + "\n")
    pq.write_table(pa.table({"text": [SENTENCE, SENTENCE]}), tmp_path / "f.parquet")
    (tmp_path / "g.txt.gz").write_bytes(gzip.compress(SENTENCE.encode()))
    (tmp_path / "LICENSE").write_text(SENTENCE)
    (tmp_path / "h.tex").write_bytes(("\ufeff" + SENTENCE).encode("utf-16-le"))
    found = read(reader(tmp_path), 100_000)
    assert not refusals(found)
    by_path: dict[str, list[str]] = {}
    for candidate in found:
        by_path.setdefault(candidate.path, []).append(candidate.data.decode())
    assert by_path.pop("b.md") == [f"# Title\n\n{SENTENCE}"]
    assert "nobody in the village" in by_path.pop("c.HTML")[0]
    assert by_path.pop("d.pdf") == [f"{SENTENCE}\n\nThe second page."]
    assert by_path.pop("f.parquet") == [SENTENCE, SENTENCE]
    assert set(by_path) == {"a.txt", "e.jsonl", "g.txt.gz", "LICENSE", "h.tex"}
    assert all(found == [SENTENCE] for found in by_path.values())


def test_a_long_text_is_divided_and_each_document_has_its_place(tmp_path: Path) -> None:
    book = f"{SENTENCE}\n\n" * 100
    (tmp_path / "book.txt").write_text(book)
    (tmp_path / "book.pdf").write_bytes(pdf([SENTENCE] * 100))
    for name in ("book.txt", "book.pdf"):
        found = [each for each in read(reader(tmp_path, document_bytes=1000), 100_000) if each.path == name]
        assert len(found) > 5
        assert [each.position for each in found] == sorted({each.position for each in found})
        assert b"".join(each.data for each in found).count(b"thirteen") == 100
    whole = read(reader(tmp_path, divide="no"), 100_000)
    assert len(whole) == 2
    assert refusals(read(reader(tmp_path, divide="no"), 1000)) == [("book.pdf", "bad_file"), ("book.txt", "bad_file")]


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(SENTENCE)
    files = {
        "binary.dat": os.urandom(100) + b"\0",
        "empty.txt": b"",
        "blank.md": b" \n\n",
        "latin.txt": SENTENCE.encode() * 20 + "café".encode("latin-1"),
        "locked.pdf": pdf([SENTENCE], "secret"),
        "scan.pdf": pdf([""]),
        "cut.pdf": pdf([SENTENCE])[:200],
        "empty.pdf": b"",
        "none.html": b"<html><body></body></html>",
        "broken.jsonl": b"[1, 2]",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = reasons(tmp_path)
    assert found.keys() == files.keys()
    assert all(str(tmp_path / name) in reason for name, reason in found.items())
    for name, part in {
        "binary.dat": "is not text: it has a byte 0 at ",
        "empty.txt": "is empty",
        "blank.md": "is empty",
        "latin.txt": "is not UTF-8 near byte 170",
        "locked.pdf": "cannot be read as PDF: it is encrypted: remove its password",
        "scan.pdf": "has no text: its pages may be images",
        "cut.pdf": "cannot be read as PDF",
        "empty.pdf": "is empty",
        "none.html": "cannot be read as HTML: no main text",
    }.items():
        assert part in found[name], found[name]
    assert texts(read(reader(tmp_path), 100_000)) == [SENTENCE.encode()]  # nothing of a bad file
    with pytest.raises(StageError, match=r"binary\.dat.*; to leave the file out"):
        read(reader(tmp_path, bad_files="fail"))
    assert "latin.txt" not in reasons(tmp_path, encoding="windows-1252")


def test_a_hostile_pdf_meets_the_bounds_and_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(bomb(60_000_000))
    (tmp_path / "b.pdf").write_bytes(pdf([SENTENCE] * 30))
    (tmp_path / "c.pdf").write_bytes(pdf([SENTENCE]))
    found = reasons(tmp_path, max_pages=20, memory_bytes=1 << 27)
    assert set(found) == {"a.pdf", "b.pdf"}
    assert "MemoryError" in found["a.pdf"]
    assert "it has 30 pages, of which at most 20 are read" in found["b.pdf"]
    assert "more than 1 s of CPU time" in reasons(tmp_path, cpu_s=1)["a.pdf"]


def test_a_corpus_names_its_bad_files_and_holds_documents_out(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "book.txt").write_text("\n\n".join(prose(number) for number in range(60)))
    (tmp_path / "text" / "cover.jpg").write_bytes(b"\xff\xd8\0\0")
    declared = {"kind": "documents", "paths": str(tmp_path / "text"), "bad_files": "drop", "document_bytes": 500}
    corpus, context = ingest(
        tmp_path / "out",
        sources={"text": {"reader": declared}},
        validation_fraction=0.0001,
        validation_documents_per_language=5,
    )
    assert corpus.manifest.size("validation").documents >= 2
    assert len(all_documents(corpus)) > 10
    assert any("1 bad file: cover.jpg" in note for note in context.notes)


@pytest.mark.parametrize(
    "fields", [{"divide": "regex"}, {"divide_pattern": "^A"}, {"divide": "regex", "divide_pattern": "("}]
)
def test_a_pattern_and_its_division_go_together(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="divide_pattern"):
        Documents.model_validate({"paths": "x", **fields})
