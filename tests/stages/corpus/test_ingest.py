"""Ingestion as a whole: conservation, determinism, deduplication, cap and split."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.artifacts.manifest import Tally
from stages.base import StageError, Stopped
from stages.corpus.ingest import IngestCorpus
from tests.stages.corpus.examples import all_documents, digests, ingest, prose, source, write_lines
from tests.support import RecordingContext, test_data


def test_every_document_is_kept_or_counted_by_the_reason_it_was_dropped_for(tmp_path: Path) -> None:
    good = [{"text": prose(number)} for number in range(30)]
    bad = [
        {"text": prose(3).replace(" ", "\n")},  # a duplicate but for its white space
        {"text": "short"},
        {"text": prose(1000) + "\0"},
        {"text": prose(1001) + "\ufffd" * 9},
        {"text": prose(1002) + "\ud800"},  # a lone surrogate: no UTF-8
        {"text": "long " * 1000},
        {"text": 17},
        {"body": "no text"},
        b"{not json",
        b"[" * 50_000,
        b"\xff\xfe",
    ]
    path = write_lines(tmp_path / "mixed.jsonl", good + bad)
    corpus, context = ingest(tmp_path, path, max_bytes=4000, draw=True)
    total = corpus.manifest.total
    assert {reason: tally.documents for reason, tally in total.dropped.items()} == {
        "deduplicate.exact": 1, "text.too_short": 1, "text.nul_character": 1, "text.replacement_characters": 1,
        "text.not_utf8": 1, "text.too_long": 1, "read.no_text": 2, "read.not_a_record": 3,
    }  # fmt: skip
    assert total.dropped["text.too_short"].bytes == len("short")
    assert total.dropped["text.too_long"].bytes == 5000
    assert total.read.documents == len(good) + len(bad)
    assert total.read == sum(total.dropped.values(), total.kept)
    kept_bytes = sum(len(document.text.encode()) for document in all_documents(corpus))
    assert total.kept == Tally(documents=30, bytes=kept_bytes)
    assert context.last["kept_documents"] == 30


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=30), st.integers(0, 2**30))
def test_any_lines_are_conserved(tmp_path: Path, lines: list[bytes], seed: int) -> None:
    clean = [line.replace(b"\n", b"") for line in lines if line.replace(b"\n", b"").strip()]
    folder = tmp_path / hashlib.sha256(repr((lines, seed)).encode()).hexdigest()[:16]
    records = [{"text": prose(number)} for number in range(40)]
    corpus, _ = ingest(folder, write_lines(folder / "in.jsonl", [*records, *clean]))
    total = corpus.manifest.total
    assert total.read.documents == 40 + len(clean)
    assert total.kept.documents + sum(tally.documents for tally in total.dropped.values()) == total.read.documents
    dropped_bytes = sum(len(line) + 1 for line in clean)
    assert total.read.bytes == total.kept.bytes + dropped_bytes


def test_the_same_documents_stay_whatever_the_order_of_reading(tmp_path: Path) -> None:
    records = [{"text": prose(number), "path": f"{number}.txt"} for number in range(200)]
    records += [{"text": prose(number), "path": "copy.txt"} for number in range(50)]
    shuffled = random.Random(0).sample(records, len(records))
    found = {}
    for name, rows in (("one", records), ("again", records), ("two", shuffled)):
        for number, record in enumerate(rows):  # ids depend on the place in a file: one file each, in another order
            folder = tmp_path / name / "in" / f"{number // 40}"
            write_lines(folder / f"{record['path']}-{record['text'][-9:]}.jsonl", [record])
        corpus, _ = ingest(tmp_path / name, tmp_path / name / "in" / "*" / "*.jsonl", limit_bytes=30_000)
        found[name] = sorted((document.id, document.text) for document in all_documents(corpus))
    assert found["one"]
    assert found["one"] == found["again"] == found["two"]
    assert digests(tmp_path / "one" / "out") == digests(tmp_path / "again" / "out")


def test_the_cap_takes_a_sample_of_all_and_keeps_below_the_limit(tmp_path: Path) -> None:
    sources = {}
    for name, numbers in (("early", range(200)), ("late", range(200, 400))):
        sources[name] = source(write_lines(tmp_path / f"{name}.jsonl", [{"text": prose(n)} for n in numbers]))
    corpus, _ = ingest(tmp_path, sources=sources, limit_bytes=50_000)
    manifest = corpus.manifest
    total = manifest.total
    assert 49_000 < total.kept.bytes <= 50_000
    assert total.dropped["limit.over"].documents == 400 - total.kept.documents
    early, late = (manifest.by("source")[name].kept.documents for name in ("early", "late"))
    assert 0.6 < early / late < 1.6


def test_a_duplicate_never_stands_in_the_other_split(tmp_path: Path) -> None:
    records = [{"text": prose(number % 100), "path": str(number)} for number in range(300)]
    corpus, _ = ingest(tmp_path, write_lines(tmp_path / "in.jsonl", records), validation_fraction=0.5)
    assert len(all_documents(corpus)) == 100
    train, validation = ({d.text for d in corpus.documents(split)} for split in ("train", "validation"))
    assert not train & validation
    assert 30 < len(train) < 70


def test_a_document_stays_in_its_split_when_others_come(tmp_path: Path) -> None:
    few = [{"text": prose(number)} for number in range(60)]
    splits = []
    for name, records in (("few", few), ("more", few + [{"text": prose(number)} for number in range(60, 120)])):
        corpus, _ = ingest(tmp_path / name, write_lines(tmp_path / name / "in.jsonl", records))
        splits.append({document.text for document in corpus.documents("validation")})
    assert splits[0]
    assert splits[0] <= splits[1]


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"text": prose(0)}])
    with pytest.raises(StageError, match=r"split \w+ is empty: .* \(1 of them\) into the other split"):
        ingest(tmp_path, path)


def test_a_corpus_may_have_no_validation_split(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"text": prose(number)} for number in range(5)])
    corpus, _ = ingest(tmp_path, path, validation_fraction=0)
    assert len(list(corpus.documents("train"))) == 5
    assert not list(corpus.documents("validation"))
    corpus.check()
    few, _ = ingest(
        tmp_path / "few", path, validation_fraction=0, validation_documents_per_language=1,
        validation_share_per_language=0.5,
    )  # fmt: skip
    assert len(list(few.documents("validation"))) == 1


def test_a_split_that_will_be_empty_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object) -> None:
        raise AssertionError("the work continued")

    monkeypatch.setattr("stages.corpus.ingestion.drafts.Drafts.measured", late)
    monkeypatch.setattr("stages.corpus.ingestion.writing.write_shard", late)
    path = write_lines(tmp_path / "in.jsonl", [{"text": "short"}] * 7 + [{"text": "x" * 2000}] * 2 + [{"body": "x"}])
    with pytest.raises(
        StageError,
        match=r"none of the 10 documents is left \(dropped: 7 by text.too_short \(see min_characters\), "
        r"2 by text.too_long \(see max_bytes\), 1 by read.no_text \(see reader.text_field\)\)",
    ):
        ingest(tmp_path, path, deduplicate=[{"rule": "near"}], max_bytes=1000)
    write_lines(tmp_path / "in.jsonl", [{"text": prose(number)} for number in range(20)])
    with pytest.raises(StageError, match=r"split validation is empty: .*validation_fraction 1e-09"):
        ingest(tmp_path / "tiny", path, deduplicate=[{"rule": "near"}], validation_fraction=1e-9)
    monkeypatch.undo()
    monkeypatch.setattr("stages.corpus.ingestion.writing.write_shard", late)
    with pytest.raises(StageError, match=r"split \w+ is empty: .*\(dropped: \d+ by limit.over \(see limit_bytes\)\)"):
        ingest(tmp_path / "limit", path, limit_bytes=300)


def test_a_page_and_its_text_have_bounds_of_their_own(tmp_path: Path) -> None:
    text = "".join(f"<p>{prose(number)}</p>" for number in range(3))
    page = f"<html><script>{'x=1;' * 5000}</script><body><article>{text}</article></body></html>"
    (tmp_path / "big.html").write_text(page)
    write_lines(tmp_path / "big.jsonl", [{"text": page}])
    sources = {
        kind: {
            "reader": {"kind": kind, "paths": [str(tmp_path / f"big.{kind}")]},
            "operations": [{"operation": "extract_html"}],
        }
        for kind in ("html", "jsonl")
    }
    bounds = {"validation_fraction": 0, "deduplicate": []}
    corpus, _ = ingest(tmp_path / "kept", sources=sources, max_bytes=5000, **bounds)
    assert corpus.manifest.total.kept.documents == 2
    with pytest.raises(StageError, match=r"2 by text.too_long \(see max_bytes\)"):
        ingest(tmp_path / "text", sources=sources, max_bytes=500, **bounds)
    with pytest.raises(StageError, match=r"2 by read.too_long \(see max_raw_bytes\)"):
        ingest(tmp_path / "raw", sources=sources, max_bytes=5000, max_raw_bytes=5000, **bounds)


def test_a_book_that_the_default_bound_drops_is_warned_about(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(prose(number))
    (tmp_path / "novel.txt").write_text(prose(0, 200_000))
    corpus, context = ingest(tmp_path, tmp_path / "*.txt", validation_fraction=0)
    assert corpus.manifest.total.kept.documents == 5
    (warning,) = [note for note in context.notes if "max_bytes" in note]
    assert "source files: 1 documents with 1.6 MB are longer than max_bytes (1,000,000, the default)" in warning
    chosen, context = ingest(tmp_path / "chosen", tmp_path / "*.txt", validation_fraction=0, max_bytes=900_000)
    assert chosen.manifest.total.dropped["text.too_long"].documents == 1
    assert not [note for note in context.notes if "max_bytes" in note]
    kept, _ = ingest(tmp_path / "all", tmp_path / "*.txt", validation_fraction=0, max_bytes=20_000_000)
    assert kept.manifest.total.kept.documents == 6


def test_stops_when_asked(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"text": prose(0)}])
    context = RecordingContext(tmp_path / "out", tmp_path / "scratch", stop=True)
    with pytest.raises(Stopped):
        IngestCorpus(sources={"files": source(path)}).run(context)


def test_the_reader_is_chosen_by_name() -> None:
    with pytest.raises(ValidationError, match="kind: 'web'; expected the name of a reader"):
        IngestCorpus(sources={"web": {"reader": {"kind": "web"}}})
    with pytest.raises(ValidationError, match="paths"):
        IngestCorpus(sources={"web": {"reader": {"kind": "files"}}})
    with pytest.raises(ValidationError, match="pattern"):
        IngestCorpus(sources={"../web": {"reader": {"kind": "installed"}}})


def test_planning_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "mlflow", "pyarrow", "tokenizers", "numpy", "matplotlib", "transformers")
    modules = "stages.corpus.ingest, stages.corpus.tokenizer, stages.corpus.tokens, stages.evaluation.evaluate"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_books_and_code_come_through(tmp_path: Path) -> None:
    books, code = test_data("english"), test_data("code")
    corpus, _ = ingest(tmp_path, books / "**/*.txt", code / "**/*.jsonl.gz", max_bytes=50_000_000)
    assert corpus.manifest.total.kept.bytes > 1_000_000
    licenses = corpus.manifest.by("license").keys()
    assert "unknown" in licenses  # of the books; every record of code brings its own
    assert len(licenses) > 1


def test_languages_are_kept_by_the_code_of_the_corpus(tmp_path: Path) -> None:
    tags = ("pt_BR", "pt", "zh-Hant-TW", "cpp", "C", "eng", "xx-Private", None)
    rows = [{"text": prose(number), "language": tags[number % len(tags)]} for number in range(80)]
    path = write_lines(tmp_path / "in.jsonl", [*rows, {"text": "short", "language": "pt_AO"}])
    corpus, _ = ingest(tmp_path, path, source={"language": "fra"})
    held = {name: flow.read.documents for name, flow in corpus.manifest.by("language").items()}
    assert held == {"c": 10, "c++": 10, "en": 10, "fr": 10, "pt": 21, "xx-private": 10, "zht": 10}
    assert {document.language for document in all_documents(corpus)} == held.keys()
