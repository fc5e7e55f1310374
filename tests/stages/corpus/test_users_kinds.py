"""Operations, readers and deduplication rules of a user's package: chosen by name, checked, identified by source."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import project as projects
from pipelines.errors import ConfigError
from pipelines.fingerprint import fingerprint, payload
from pipelines.graph import Step, build
from stages import registry
from stages.artifacts.corpus import Corpus
from stages.base import StageError
from stages.corpus.ingest import IngestCorpus
from tests.stages.corpus.examples import all_documents, prose
from tests.support import run_stage

PYPROJECT = """
[tool.bloomline]
packages = ["my_corpus"]

[project.entry-points."bloomline.operations"]
without_word = "my_corpus.kinds:WithoutWord"

[project.entry-points."bloomline.readers"]
paragraphs = "my_corpus.kinds:Paragraphs"

[project.entry-points."bloomline.deduplication"]
same_start = "my_corpus.kinds:SameStart"
"""
KINDS = '''
from typing import Literal

import numpy as np

from stages.corpus.deduplication.rule import DeduplicationRule
from stages.corpus.ingestion.rule_decision import RuleDecision
from stages.corpus.operations.operation import Drop, Operation
from stages.corpus.readers.file_systems import FileReader, opened
from stages.corpus.readers.reader import Candidate


class WithoutWord(Operation):
    """Drops documents with a word."""

    operation: Literal["without_word"] = "without_word"
    word: str

    def function(self):
        return lambda draft: Drop("has_word", self.word, "") if self.word in draft.text.split() else draft


class Paragraphs(FileReader):
    """Text files, one document per paragraph."""

    kind: Literal["paragraphs"] = "paragraphs"

    def suffixes(self):
        return (".para",)

    def read(self, part, max_bytes):
        with opened(part) as stream:
            for position, text in enumerate(stream.read().split(b"\\n\\n")):
                yield Candidate(text, part.name, position)


class SameStart(DeduplicationRule):
    """Documents whose key starts with the same bits."""

    rule: Literal["same_start"] = "same_start"
    bits: int = 1

    def decider(self, drafts):
        def decide(index, kept):
            rows = index.by_precedence(np.flatnonzero(kept))
            _, first = np.unique(index.table["key_high"][rows] >> np.uint64(64 - self.bits), return_index=True)
            return RuleDecision("deduplicate", self.rule, str(self.bits), np.delete(rows, first),
                                lambda positions: [""] * len(positions))
        return decide


class Nameless(Operation):
    """Declares no name."""
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a package `my_corpus`, whose kinds are registered."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "my_corpus").mkdir()
    (tmp_path / "my_corpus" / "__init__.py").write_text("")
    (tmp_path / "my_corpus" / "kinds.py").write_text(KINDS)
    (tmp_path / "in.para").write_text("\n\n".join(map(prose, range(60))))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(registry, "_user_packages", registry._UserPackages())
    monkeypatch.setattr(registry, "_first_digests", {})
    monkeypatch.chdir(tmp_path)
    projects.find(tmp_path).use()
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_corpus"]:
        del sys.modules[name]


def config(project: Path, **changes: object) -> dict[str, object]:
    reader = {"kind": "paragraphs", "paths": [str(project / "*.para")]}
    operations = [{"operation": "without_word", "word": "word0"}]
    rules = [{"rule": "exact"}, {"rule": "same_start", "bits": 4}]
    return {"sources": {"own": {"reader": reader, "operations": operations}}, "deduplicate": rules, **changes}


def step(project: Path, **changes: object) -> Step:
    return build("own", {"corpus": {"stage": "corpus", **config(project, **changes)}}).steps["corpus"]


def digest(path: Path) -> str:
    return path.name


def test_a_corpus_is_made_with_kinds_of_a_users_package(project: Path) -> None:
    stage = IngestCorpus.model_validate(config(project, validation_fraction=0.3))
    corpus: Corpus = run_stage(stage, {}, project / "corpus")[0]
    dropped = {reason: tally.documents for reason, tally in corpus.manifest.total.dropped.items()}
    assert corpus.manifest.total.read.documents == 60
    assert dropped["without_word.has_word"] == sum("word0" in prose(number).split() for number in range(60)) > 0
    assert dropped["deduplicate.same_start"] == 60 - dropped["without_word.has_word"] - len(all_documents(corpus))
    assert len(all_documents(corpus)) <= 16
    assert corpus.manifest.sources["own"].reader == "paragraphs"


@pytest.mark.parametrize("target", ["my_corpus.kinds:WithoutWord", "without_word"])
def test_a_class_may_be_named_directly(project: Path, target: str) -> None:
    source = {
        "reader": {"kind": "my_corpus.kinds:Paragraphs", "paths": [str(project / "*.para")]},
        "operations": [{"operation": target, "word": "x"}],
    }
    stage = step(project, sources={"own": source}, deduplicate=[{"rule": "my_corpus.kinds:SameStart"}]).stage
    assert isinstance(stage, IngestCorpus)
    assert [operation.operation for operation in stage.sources["own"].operations] == ["without_word"]
    assert stage.sources["own"].reader.kind == "paragraphs"
    assert [rule.rule for rule in stage.deduplicate] == ["same_start"]


TEXT = {"kind": "text", "paths": ["x"]}


@pytest.mark.parametrize(
    ("source", "rule", "said"),
    [
        ({"reader": TEXT}, "same_stort", "expected the name of a deduplication rule. Did you mean 'same_start'?"),
        (
            {"reader": {**TEXT, "kind": "paragraph"}},
            "exact",
            "expected the name of a reader. Did you mean 'paragraphs'?",
        ),
        (
            {"reader": TEXT, "operations": [{"operation": "without_wrod"}]},
            "exact",
            "expected the name of an operation. Did you mean 'without_word'?",
        ),
        (
            {"reader": TEXT, "operations": [{"operation": "my_corpus.kinds:Nameless"}]},
            "exact",
            "my_corpus.kinds:Nameless declares no name; add a field such as `operation: Literal[",
        ),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_one(
    project: Path, source: dict[str, object], rule: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        step(project, sources={"own": source}, deduplicate=[{"rule": rule}])
    assert said in str(caught.value)


def identity(project: Path) -> tuple[str, str]:
    """The fingerprint of the step and the hash of the operations, as a new process would compute them."""
    for name in [name for name in sys.modules if name.split(".")[0] == "my_corpus"]:
        del sys.modules[name]
    registry._first_digests.clear()
    found = step(project)
    assert isinstance(found.stage, IngestCorpus)
    return fingerprint(payload(found, {}, digest)), found.stage.sources["own"].chain()


@pytest.mark.parametrize("kind", ["WithoutWord", "Paragraphs", "SameStart"])
def test_the_source_of_a_kind_is_part_of_the_identity_until_it_declares_a_version(project: Path, kind: str) -> None:
    file = project / "my_corpus" / "kinds.py"

    def declared(source: str, *kinds: str) -> str:
        for name in kinds:
            source = source.replace(f"class {name}(", f"class {name}(_Versioned, ")
        mixin = "from typing import ClassVar\n\nfrom pydantic import BaseModel\n\n\nclass _Versioned(BaseModel):\n"
        return f"{mixin}    version: ClassVar[str] = '1'\n\n{source}"

    others = {"WithoutWord", "Paragraphs", "SameStart"} - {kind}
    file.write_text(declared(KINDS, *others))
    before = identity(project)
    file.write_text(declared(KINDS, *others) + "\n# edited\n")
    after = identity(project)
    assert before[0] != after[0], "the source of the kind counts"
    assert (before[1] != after[1]) == (kind == "WithoutWord")
    file.write_text(declared(KINDS, kind, *others))
    before = identity(project)
    file.write_text(declared(KINDS, kind, *others) + "\n# edited\n")
    assert identity(project) == before


def test_source_that_changed_after_the_import_is_refused(project: Path) -> None:
    found = step(project)
    (project / "my_corpus" / "kinds.py").write_text(KINDS + "\n# edited\n")
    with pytest.raises(StageError, match="changed after this command had imported it"):
        payload(found, {}, digest)
