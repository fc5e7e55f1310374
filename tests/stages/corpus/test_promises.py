"""What ingestion promises beyond a single run: the same bytes for any workers, conservation, a ledger, flat memory."""

from __future__ import annotations

import collections
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.base import Executor, Launcher, Send
from pipelines.execute import StepContext
from stages.artifacts.corpus import Corpus, dropped_name
from stages.base import Demand, Resources, StageError
from stages.corpus.deduplication import families
from stages.corpus.ingest import IngestCorpus
from stages.corpus.ingestion.samples import Samples
from stages.corpus.ngram import TrainNgram
from stages.corpus.ngram_model import NgramModel
from tests.cluster.support import run
from tests.stages.corpus.examples import all_documents, digests, ingest, prose, small_corpus, source, write_lines
from tests.stages.corpus.ingestion import children
from tests.support import run_stage


def many(folder: Path, files: int = 8) -> dict[str, Any]:
    """Sources with bad records, short texts, and copies of one another."""
    sources = {}
    for rank, name in enumerate(("web", "books")):
        for number in range(files):
            records: list[Any] = [
                {"text": prose(number * 25 + line + rank * 50), "language": ("en", "fr")[line % 2]}
                for line in range(25)
            ]
            bad = [{"text": "short"}, {"text": 3}, b"{", {"text": prose(number) + "\0"}, {"text": "cafe\u0301 " * 30}]
            write_lines(folder / name / f"{number:02d}.jsonl", records + bad)
        operations = [{"operation": "normalise"}, {"operation": "words", "minimum": 20, "maximum": 60}]
        sources[name] = source(folder / name / "*.jsonl", rank=rank, license="MIT", operations=operations)
    return {"sources": sources, "shard_bytes": 20_000, "validation_fraction": 0.2, "limit_bytes": 60_000}


def ingest_on(values: dict[str, Any], models: dict[str, NgramModel], out: Path, launcher: Launcher, send: Send) -> None:
    """Work for an executor: ingest, as a step does, with as many parts for the workers as there may be."""
    families.FEW_MEMBERS, families.PAIRS = 0, 16
    out.mkdir()
    scratch = out.with_suffix(".scratch")
    scratch.mkdir()
    IngestCorpus(**values).bind(models).run(StepContext("corpus", out, scratch, launcher, send))


@pytest.mark.ray
def test_the_number_of_workers_never_changes_a_byte(ray_session: Executor, tmp_path: Path) -> None:
    values = many(tmp_path / "in")
    english = {"operation": "perplexity", "model": "ngram", "languages": ["en"], "maximum_percentile": 50}
    values["sources"]["web"]["operations"].append(english)
    like = write_lines(tmp_path / "in" / "like.jsonl", [{"text": f"{prose(n, 60)} once more"} for n in range(40)])
    same = write_lines(tmp_path / "in" / "same.jsonl", [{"text": prose(n, 60)} for n in range(40)])
    values["sources"]["like"] = source(like, same, rank=2)
    (tmp_path / "quiz.txt").write_text(prose(3, 20))
    rules = ({"rule": "exact"}, {"rule": "url"}, {"rule": "near", "bands": 10, "rows": 2}, {"rule": "simhash"})
    values |= {
        "deduplicate": [*rules, {"rule": "lines", "min_count": 2}, {"rule": "substrings"}],
        "decontaminate": {"tasks": {"quiz": {"paths": [str(tmp_path / "quiz.txt")]}}},
        "validation_documents_per_language": 30,
        "limit_bytes": 50_000,
        "min_characters": 10,
    }
    training = TrainNgram(corpus="corpus", order=3, table_bits=12)
    models = {"ngram": run_stage(training, {"corpus": small_corpus(tmp_path / "good")}, tmp_path / "ngram")[0]}
    for workers in (1, 2):  # of 2 with as little memory for decisions as there may be
        values["memory_bytes"] = 1 << (30 if workers == 1 else 0)
        work = partial(ingest_on, {**values, "workers": workers}, models, tmp_path / str(workers))
        ended, said = run(ray_session, work, Demand(task=Resources(cpus=0)))
        assert ended.state == "done", ended
        assert [message for message in said if message.kind == "progress"]
    one = digests(tmp_path / "1")
    assert len([name for name in one if name.startswith("documents/")]) > 4
    assert one == digests(tmp_path / "2")
    corpus = Corpus(tmp_path / "2")
    dropped = [row for shard in range(len(corpus.manifest.shards)) for row in corpus.dropped(shard).to_pylist()]
    by_perplexity = [(row["source"], row["language"]) for row in dropped if row["operation"] == "perplexity"]
    assert len(by_perplexity) > 20
    assert set(by_perplexity) == {("web", "en")}
    total = corpus.manifest.total
    reported = {reason.partition(".")[2] for reason in total.dropped}
    assert reported >= {"exact", "near", "evaluation_set", "over"}
    assert total.trimmed["deduplicate.substrings"] > 0


def test_every_source_and_language_is_conserved_and_every_drop_is_in_the_ledger(tmp_path: Path) -> None:
    corpus, _ = ingest(tmp_path, **many(tmp_path / "in"))
    manifest = corpus.manifest
    assert {(cell.source, cell.language) for cell in manifest.cells} == {
        (name, language) for name in ("web", "books") for language in ("en", "fr", "")
    }
    assert manifest.total.trimmed["normalise"] > 0
    ledger: collections.Counter[tuple[str, str, str]] = collections.Counter()
    bytes_: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for shard in range(len(manifest.shards)):
        for row in corpus.dropped(shard).to_pylist():
            cell = (row["source"], row["language"], f"{row['operation']}.{row['rule']}")
            ledger[cell] += 1
            bytes_[cell] += row["bytes"]
    counted = {
        (cell.source, cell.language, reason): tally
        for cell in manifest.cells
        for reason, tally in cell.flow.dropped.items()
    }
    assert {key: tally.documents for key, tally in counted.items()} == ledger
    assert {key: tally.bytes for key, tally in counted.items()} == bytes_
    assert {reason for _, _, reason in counted} == {
        "read.no_text", "read.not_a_record", "text.nul_character", "words.too_few", "deduplicate.exact",
        "limit.over",
    }  # fmt: skip
    assert manifest.total.read.documents == 2 * 8 * 30


def test_the_ledger_says_why_and_duplicates_name_the_copy_that_stayed(tmp_path: Path) -> None:
    corpus, _ = ingest(tmp_path, **many(tmp_path / "in") | {"limit_bytes": None})
    kept = {document.id: document for document in all_documents(corpus)}
    rows = [row for shard in range(len(corpus.manifest.shards)) for row in corpus.dropped(shard).to_pylist()]
    assert not kept.keys() & {row["id"] for row in rows}
    words = [row for row in rows if row["operation"] == "words"]
    assert {(row["rule"], row["value"], row["threshold"]) for row in words} == {("too_few", "1", "20")}
    copies = [row for row in rows if row["operation"] == "deduplicate"]
    assert len(copies) > 50
    assert {kept[row["value"]].source for row in copies if row["source"] == "books"} == {"web"}  # of the smaller rank
    assert all(row["threshold"] == "" and row["path"].endswith(".jsonl") for row in copies)


def test_samples_are_drawn_by_seed_and_show_the_text(tmp_path: Path) -> None:
    values = many(tmp_path / "in") | {"samples_per_rule": 3}
    tables = [
        ingest(tmp_path / name, **values, seed=seed)[0].samples().to_pylist()
        for name, seed in (("one", 0), ("again", 0), ("other", 1))
    ]
    assert tables[0] == tables[1] != tables[2]
    per_rule = collections.Counter((row["source"], row["operation"], row["rule"]) for row in tables[0])
    assert set(per_rule.values()) <= {1, 2, 3}
    assert per_rule["books", "deduplicate", "exact"] == 3
    assert {row["text"] for row in tables[0] if row["rule"] == "too_few"} == {"short"}


def test_samples_of_parts_are_those_of_the_whole() -> None:
    rows = [
        {"id": f"{random.Random(n).getrandbits(128):032x}", "source": "s", "operation": "o", "rule": "r", "text": "t"}
        for n in range(200)
    ]
    whole, parts, together = Samples(5, 7), [Samples(5, 7) for _ in range(4)], Samples(5, 7)
    for number, row in enumerate(rows):
        whole.offer(row)
        parts[number % 4].offer(row)
    for part in parts:
        for kept in part.rows():
            together.offer(kept)
    assert list(whole.rows()) == list(together.rows())
    assert len(list(whole.rows())) == 5
    assert list(Samples(0, 7).rows()) == []


def test_shards_are_one_for_one_and_divide_a_large_file(tmp_path: Path) -> None:
    big = write_lines(tmp_path / "big.jsonl", [{"text": prose(number)} for number in range(400)])
    small = [write_lines(tmp_path / f"small{n}.jsonl", [{"text": prose(1000 + n)}]) for n in range(3)]
    values = {"sources": {"all": source(big, *small)}, "shard_bytes": 30_000, "validation_fraction": 0.3}
    corpus, _ = ingest(tmp_path, **values)
    shards = corpus.manifest.shards
    assert len(shards) == round(big.stat().st_size / 30_000) + 1
    assert sum(sum(tally.documents for tally in shard.splits.values()) for shard in shards) == 403
    for index in range(len(shards)):
        assert (corpus.path / dropped_name(index)).exists()


@pytest.mark.parametrize("shard_bytes", [1_000_000, 2000])  # too many within a shard, and only in all of them
def test_labels_without_end_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr("stages.corpus.ingestion.counts.LABELS_LIMIT", 50)
    rows = [{"text": prose(number), "license": f"see page {number}"} for number in range(51)]
    path = write_lines(tmp_path / "in.jsonl", rows)
    with pytest.raises(StageError, match=r"source files has more than 50 .*`license`"):
        ingest(tmp_path, path, shard_bytes=shard_bytes)
    write_lines(path, rows[:50])
    assert len(ingest(tmp_path / "fewer", path)[0].manifest.by("license")) == 50


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Neither with the number of shards, nor with the size of a file that cannot be divided."""
    peaks = []
    texts = [prose(number, 4000) for number in range(4)]
    for times in (1, 4):
        folder = tmp_path / str(times)
        for file in range(times * 3):
            write_lines(folder / "many" / f"{file}.jsonl", [{"text": f"{file} {n} {texts[0]}"} for n in range(50)])
        one = write_lines(folder / "one.jsonl.zst", [{"text": f"{n} {texts[n % 4]}"} for n in range(times * 600)])
        sources = {"many": source(folder / "many" / "*.jsonl"), "one": source(one)}
        values = {"sources": sources, "shard_bytes": 1_500_000, "validation_fraction": 0.5}
        child = children.start(values, folder / "out", folder / "scratch", folder / "peak")
        child.join(120)
        assert child.exitcode == 0
        peaks.append(int((folder / "peak").read_text().split()[1]))
        assert Corpus(folder / "out").manifest.total.kept.bytes > times * 20_000_000
    assert peaks[1] < 1.1 * peaks[0], [f"{peak / 1e6:.0f} MB" for peak in peaks]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"operation": "wordz"}, "'wordz'; expected the name of an operation"),
        ({"operation": "words", "minimun": 3}, "minimun"),
        ({"operation": "words", "minimum": -3}, "greater than or equal to 0"),
    ],
)
def test_a_wrong_operation_is_refused_before_anything_starts(operation: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IngestCorpus(sources={"a": {"reader": {"kind": "installed"}, "operations": [operation]}})


def test_every_promise_of_the_documentation_names_tests_that_are_there() -> None:
    root = Path(__file__).parents[3]
    rows = re.findall(r"^\| (\d+) \|.*$", (root / "docs" / "corpus.md").read_text(), re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, 1 + len(rows)))
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (root / "docs" / "corpus.md").read_text())
    assert len(rows) >= 17
    assert len(named) >= 30
    for file, test in named:
        assert f"def {test}(" in (root / "tests" / "stages" / file).read_text(), f"{file}::{test}"
