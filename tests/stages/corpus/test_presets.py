"""The shipped sources and corpora: each composes, and processes real text as its first lines say."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pytest

from pipelines import config
from stages.artifacts.corpus import Corpus
from stages.corpus.ingest import IngestCorpus
from tests.stages.corpus.examples import all_documents, prose, read_lines, write_lines
from tests.stages.corpus.readers.test_trees import record
from tests.support import run_stage, test_data

PRESETS = Path(__file__).parents[3] / "conf" / "corpus"
SOURCES = sorted(path.stem for path in (PRESETS / "source").glob("*.yaml"))


def composed(folder: Path, preset: str, group: str, *overrides: str) -> IngestCorpus:
    """The stage of a pipeline with a preset in it, as a user composes it."""
    pipeline = folder / "conf" / "pipeline" / "preset.yaml"
    pipeline.parent.mkdir(parents=True, exist_ok=True)
    pipeline.write_text(
        f"# @package _global_\ndefaults:\n  - /{group}: {preset}\n  - _self_\n"
        "name: preset\nsteps: {corpus: {stage: corpus}}\n"
    )
    found = config.compose([f"hydra.searchpath=[file://{folder / 'conf'}]", "pipeline=preset", *overrides])
    stage = found.graph.steps["corpus"].stage
    assert isinstance(stage, IngestCorpus)
    return stage


def paths(**of: Sequence[Path]) -> list[str]:
    return [
        f"steps.corpus.sources.{name}.reader.paths={json.dumps(list(map(str, given)))}" for name, given in of.items()
    ]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("preset", SOURCES)
def test_every_source_composes(preset: str, tmp_path: Path) -> None:
    asks = "paths: ???" in (PRESETS / "source" / f"{preset}.yaml").read_text()
    overrides = paths(one=[tmp_path / "*"]) if asks else []
    stage = composed(tmp_path, preset, "corpus/source@steps.corpus.sources.one", *overrides)
    assert stage.sources.keys() == {"one"}
    for operation in stage.sources["one"].operations:
        operation.function()


def test_a_corpus_as_roots_was_made(tmp_path: Path) -> None:
    web = read_lines(test_data("messy", "ewt-web-text.jsonl.gz"))
    spoken = [prose(number, 60).translate(LETTERS) for number in range(40)]  # ROOTS' key of a document knows no digits
    catalogue = [
        {"text": f"The header of every single page\n{text}\nvar x = {{}};", "language": "en"} for text in spoken
    ]
    oscar: list[dict[str, Any]] = [
        {
            "content": row["text"],
            "warc_headers": {"warc-target-uri": f"https://web.org/{number}"},
            "metadata": {"identification": {"label": row["lang"], "prob": 0.9}},
        }
        for number, row in enumerate(
            web[:80] + read_lines(test_data("multilingual", "gnome-user-docs", "fr.jsonl.gz"))[:40]
        )
    ]
    for number in (1, 2):  # one page twice, and one of nothing
        oscar.append({**oscar[0], "content": oscar[0]["content"] + f" Seen {number} times."})
    oscar.append({"content": "a a a a a a", "metadata": {"identification": {"label": "en"}}})
    long = [row["text"] for row in web[80:] if len(row["text"]) > 2000][:3]
    pages = [
        record(f"https://news.org/{n}", f"<article><p>{NOTICE}</p><p>{escape(text)}</p></article>".encode())
        for n, text in enumerate(long)
    ]
    code = tmp_path / "code" / "tree"
    for name, licence in (("free", "MIT"), ("bound", "GPL-3.0-only")):
        (code / name).mkdir(parents=True)
        body = "".join(
            f"def function_{n}(argument):\n    return argument * {n} + len(str(argument))\n" for n in range(9)
        )
        (code / name / "a.py").write_text(f"# SPDX-License-Identifier: {licence}\n# {name}\n{body}")
    (tmp_path / "crawl.warc.gz").write_bytes(gzip.compress(b"".join(pages)))
    given = paths(
        catalogue=[write_lines(tmp_path / "catalogue.jsonl", catalogue)],
        oscar=[write_lines(tmp_path / "oscar.jsonl.gz", oscar)],
        pseudo_crawl=[tmp_path / "crawl.warc.gz"],
        code=[code],
    )
    stage = composed(tmp_path, "roots", "corpus@steps.corpus", *given)
    corpus: Corpus = run_stage(stage, {}, tmp_path / "corpus")[0]

    documents = all_documents(corpus)
    flows = corpus.manifest.by("source")
    assert all("header of every" not in document.text for document in documents), "a template line"
    assert all("{" not in document.text for document in documents if document.source == "catalogue")
    assert {document.license for document in documents if document.source == "code"} == {"MIT"}
    assert flows["code"].dropped["license.license"].documents == 1
    pages_of_oscar = [document for document in documents if document.source == "oscar"]
    assert {document.language for document in pages_of_oscar} == {"en", "fr"}
    assert all(document.url.startswith("https://web.org/") for document in pages_of_oscar)
    assert len(pages_of_oscar) > 80
    assert flows["oscar"].dropped["roots_quality.too_few_words"].documents >= 1
    assert flows["oscar"].dropped.keys() >= {"deduplicate.exact", "deduplicate.url"}
    news = [document.text for document in documents if document.source == "pseudo_crawl"]
    assert len(news) == len(pages)
    assert not any(NOTICE in text for text in news), "a line of two pages of a newspaper"


LETTERS = str.maketrans("0123456789", "abcdefghij")
NOTICE = "Our readers are asked to tell the editors of what they see, and to pay for what they read, which is not much."
