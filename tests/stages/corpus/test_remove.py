"""Removal: no trace of a document remains, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages.artifacts.corpus import Corpus
from stages.base import StageError
from stages.corpus.remove import RemoveDocuments
from stages.corpus.tokenizer import TrainTokenizer
from stages.corpus.tokens import TokenizeCorpus
from tests.stages.corpus.examples import all_documents, digests, ingest, prose, source, write_lines
from tests.support import RecordingContext, run_stage


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Eight shards of 30 documents, with licences, addresses, short texts, and copies in a second source."""
    folder = tmp_path_factory.mktemp("corpus")
    sources = {}
    for rank, name in enumerate(("web", "copies")):
        for file in range(4):
            records: list[dict[str, Any]] = [
                {
                    "text": prose(file * 30 + line + rank * 15),
                    "license": ("MIT", "GPL-3.0-only", "MIT OR GPL-3.0-only", "MIT AND GPL-3.0-only")[line % 4],
                    "url": f"https://host{file}.org/{name}/{line}",
                    "path": f"{name}/{file}/{line}.txt",
                }
                for line in range(30)
            ]
            records.append({"text": "short", "path": f"{name}/{file}/short.txt", "url": "https://short.org/x"})
            write_lines(folder / name / f"{file}.jsonl", records)
        sources[name] = source(folder / name / "*.jsonl", rank=rank)
    return ingest(folder, sources=sources, shard_bytes=14_000, samples_per_rule=200)[0]  # every copy is a sample


def remove(
    corpus: Corpus, folder: Path, lines: list[str] | None = None, **fields: Any
) -> tuple[Corpus, RecordingContext]:
    if lines is not None:
        (folder / "list.txt").write_text("\n".join(lines))
        fields["listed"] = {"path": folder / "list.txt"}
    return run_stage(RemoveDocuments(corpus="corpus", **fields), {"corpus": corpus}, folder)


def changed(before: Corpus, after: Corpus) -> set[str]:
    one, two = digests(before.path), digests(after.path)
    found = {name for name in one if two.get(name) != one[name] and not name.startswith("pages/")}
    return found - {"manifest.json", "samples.parquet"}


def everything(corpus: Corpus) -> str:
    """Everything in a corpus as text: documents, ledger, samples, manifest."""
    ledgers = [corpus.dropped(shard).to_pylist() for shard in range(len(corpus.manifest.shards))]
    return repr([all_documents(corpus), ledgers, corpus.samples().to_pylist(), corpus.manifest.model_dump()])


def test_a_document_leaves_no_trace_and_other_shards_keep_their_bytes(corpus: Corpus, tmp_path: Path) -> None:
    ledger = [row for shard in range(len(corpus.manifest.shards)) for row in corpus.dropped(shard).to_pylist()]
    copy = next(row for row in ledger if row["rule"] == "exact")
    gone = next(document for document in all_documents(corpus) if document.id == copy["value"])
    after, context = remove(corpus, tmp_path, [gone.id])
    remaining = everything(after)
    for trace in (gone.id, gone.text, gone.path + "'", gone.url + "'"):
        assert trace in everything(corpus)
        assert trace not in remaining
    assert copy["path"] in remaining  # the copy that was dropped is another document: it names nothing any more
    assert context.last["removed_documents"] == 1
    files = changed(corpus, after)
    assert len([name for name in files if name.startswith("documents/")]) == 1
    assert len(files) <= 2  # its shard, and the ledger of its copy's shard
    total, before = after.manifest.total, corpus.manifest.total
    assert total.read == before.read
    assert total.dropped["remove.listed"].documents == 1
    assert total.kept.documents == before.kept.documents - 1
    assert {d.id for d in all_documents(after)} == {d.id for d in all_documents(corpus)} - {gone.id}


def test_its_tokens_are_gone_too(corpus: Corpus, tmp_path: Path) -> None:
    gone = all_documents(corpus)[3]
    after, _ = remove(corpus, tmp_path, ["# asked for on Monday", "", gone.url])
    tokenizer, _ = run_stage(TrainTokenizer(corpus="c", vocab_size=300), {"c": after}, tmp_path / "tokenizer")
    stage = TokenizeCorpus(corpus="c", tokenizer="t")
    tokens, _ = run_stage(stage, {"c": after, "t": tokenizer}, tmp_path / "tokens")
    text = "".join(tokenizer.load().decode(list(tokens.split(split).tokens[:])) for split in ("train", "validation"))
    assert gone.text not in text
    assert all_documents(corpus)[4].text in text


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("https://host2.org/web/", lambda d: d.url.startswith("https://host2.org/web/")),
        ("host1.org", lambda d: d.url.startswith("https://host1.org/")),
        ("web/0/3.txt", lambda d: d.path == "web/0/3.txt"),
        ("GPL-3.0-only", lambda d: d.license == "GPL-3.0-only"),
    ],
)
def test_addresses_hosts_paths_and_licences(corpus: Corpus, tmp_path: Path, entry: str, expected: Any) -> None:
    after, _ = remove(corpus, tmp_path, [entry])
    left = {document.id for document in all_documents(after)}
    assert left == {document.id for document in all_documents(corpus) if not expected(document)}
    assert len(left) < len(all_documents(corpus))


def test_what_was_dropped_is_forgotten_as_well(corpus: Corpus, tmp_path: Path) -> None:
    after, context = remove(corpus, tmp_path, ["short.org"])
    assert "short.txt" in everything(corpus)
    assert "short.txt" not in everything(after)
    assert (context.last["removed_documents"], context.last["erased_ledger_rows"]) == (0, 8)
    assert after.manifest.forgotten == 8
    assert after.manifest.total == corpus.manifest.total  # the numbers stay


def test_licences_are_allowed_and_denied_and_never_the_other_way_round(corpus: Corpus, tmp_path: Path) -> None:
    for name, fields, left in (
        ("deny", {"deny_licenses": ["GPL-*"]}, {"MIT", "MIT OR GPL-3.0-only"}),
        ("allow", {"allow_licenses": ["GPL-*"]}, {"GPL-3.0-only", "MIT OR GPL-3.0-only"}),
    ):
        (tmp_path / name).mkdir()
        after, _ = remove(corpus, tmp_path / name, **fields)
        assert {document.license for document in all_documents(after)} == left
        assert "remove.license" in after.manifest.total.dropped


def test_a_removal_of_nothing_changes_nothing(corpus: Corpus, tmp_path: Path) -> None:
    after, context = remove(corpus, tmp_path, ["nobody.org", "0" * 32])
    assert changed(corpus, after) == set()
    assert context.last["changed_shards"] == 0


def test_a_removal_after_a_removal_adds_up(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    once, _ = remove(corpus, tmp_path / "one", ["host0.org"])
    twice, _ = remove(once, tmp_path, ["host1.org"])
    twice.check()
    hosts = {document.url.split("/")[2] for document in all_documents(twice)}
    assert hosts == {"host2.org", "host3.org"}
    assert twice.manifest.total.read == corpus.manifest.total.read


def test_what_can_not_be_meant_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="nothing would be removed"):
        RemoveDocuments(corpus="corpus")
    with pytest.raises(StageError, match="list cannot be read"):
        remove(corpus, tmp_path, listed={"path": tmp_path / "absent.txt"})
    with pytest.raises(StageError, match=r"split \w+ would be empty: all of its"):
        remove(corpus, tmp_path / "all", allow_licenses=["Apache-2.0"])
