"""The pipeline of a person's own text: from a folder with all sorts of files to a model that is served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.store import Store, StoreConfig
from stages.artifacts.corpus import Corpus
from stages.artifacts.evaluation_report import EvalReport
from tests.end_to_end.conftest import CommandLine
from tests.stages.corpus.examples import prose
from tests.stages.corpus.readers.pdf import pdf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_folder_of_files_becomes_a_served_model(bloomline: CommandLine, tmp_path: Path) -> None:
    books = tmp_path / "my books (old)"
    books.mkdir()
    (books / "one.txt").write_text("\n\n".join(prose(number) for number in range(80)))
    (books / "two.pdf").write_bytes(pdf([prose(number) for number in range(100, 120)]))
    (books / "cover.jpg").write_bytes(b"\xff\xd8\xff\0")
    code, out = bloomline("run", "pipeline=text_debug", f"text='{books}'", "cluster=inline")
    assert code == 0, out
    assert "1 bad file: cover.jpg" in out
    store = Store(StoreConfig(root=str(bloomline.store)))
    places = {record.step: Path(store.uri(record)) for record in store.records()}
    corpus, report = Corpus(places["corpus"]), EvalReport(places["evaluate"])
    held_out = " ".join(" ".join(document.text.split()) for document in corpus.documents("validation"))
    assert all(completion.prompt in held_out for completion in report.results.completions)
    assert json.loads((places["deploy"] / "deployment.json").read_text())["prompt"] in held_out
    card = (places["export"] / "README.md").read_text()
    assert "license: unknown" in card
    assert "- own-text" in card
    assert "language" not in card.split("---")[1]
    code, out = bloomline("plan", "pipeline=text_debug", "cluster=inline")
    assert code == 2
    assert "text: not set; expected a file, a folder, a glob or the URL of one. Set it with text=PATH." in out
    (tmp_path / "note.txt").write_text(prose(1))
    code, out = bloomline("run", "pipeline=text_debug", f"text={tmp_path / 'note.txt'}", "cluster=inline")
    assert code == 1
    assert "too little text to hold some out" in out
