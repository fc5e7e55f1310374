"""Texts as pages of words: files, documentation, halves and substitution."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from stages.base import StageError
from stages.word_alignment.texts import PackageDocumentation, Text, TextFile, original, substituted

PAGES = "<page>\nThe house, the 2 houses.\nNaïve d'été\n<page>\n\n<page>\nSecond page\n"


def digest(text: TextFile) -> str:
    return text.digest(lambda path: hashlib.sha256(path.read_bytes()).hexdigest())


def test_pages_hold_lower_case_runs_of_letters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PAGES)
    pages = [["the", "house", "the", "houses", "naïve", "d", "été"], ["second", "page"]]
    assert list(TextFile(path=tmp_path / "a.txt").pages()) == pages
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(PAGES.encode()))
    assert list(TextFile(path=tmp_path / "a.txt.gz").pages()) == pages
    assert list(TextFile(path=tmp_path / "a.txt", half="first").pages()) == pages[:1]
    assert list(TextFile(path=tmp_path / "a.txt", half="second").pages()) == pages[1:]
    (tmp_path / "b.txt").write_text("one\ntwo\n\nthree")
    assert list(TextFile(path=tmp_path / "b.txt", page_separator="").pages()) == [["one", "two"], ["three"]]


def test_the_digest_is_of_the_content_and_of_what_is_done_with_it(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(PAGES)
    one = TextFile(path=tmp_path / "a.txt")
    assert digest(one) == digest(TextFile(path=tmp_path / "b.txt"))
    assert digest(one) != digest(TextFile(path=tmp_path / "a.txt", half="first"))
    assert digest(one) != digest(TextFile(path=tmp_path / "a.txt", substitute=True))
    (tmp_path / "b.txt").write_text(PAGES + "more")
    assert digest(one) != digest(TextFile(path=tmp_path / "b.txt"))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is not a file"):
        digest(TextFile(path=tmp_path / "none.txt"))
    (tmp_path / "latin.txt").write_bytes("ok\nété\n".encode("latin-1"))
    with pytest.raises(StageError, match="line 2: expected text in UTF-8"):
        list(TextFile(path=tmp_path / "latin.txt").pages())
    (tmp_path / "bad.gz").write_bytes(gzip.compress(PAGES.encode() * 100)[:-20])
    with pytest.raises(StageError, match="cannot be read"):
        list(TextFile(path=tmp_path / "bad.gz").pages())
    with pytest.raises(StageError, match="'no_such_package_here' is not an installed"):
        list(PackageDocumentation(packages=("no_such_package_here",)).pages())


def test_documentation_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "documented"
    (package / "tests").mkdir(parents=True)
    words = " ".join(["word"] * 20)
    (package / "__init__.py").write_text(
        f'"""Module {words}"""\ndef f():\n    """Function {words}"""\ndef g():\n    "no"\n'
    )
    (package / "broken.py").write_text("def (")
    (package / "tests" / "test_it.py").write_text(f'"""Test {words}"""')
    monkeypatch.syspath_prepend(tmp_path)
    pages = list(PackageDocumentation(packages=("documented",)).pages())
    assert [page[0] for page in pages] == ["module", "function"]
    assert len(list(PackageDocumentation(packages=("documented",), max_pages=1).pages())) == 1


@given(st.text(max_size=20).map(str.lower), st.text(max_size=20).map(str.lower))
def test_substitution_is_a_bijection(one: str, other: str) -> None:
    assert original(substituted(one)) == one
    assert (substituted(one) == substituted(other)) == (one == other)


def test_the_kind_chooses_the_text() -> None:
    adapter: TypeAdapter[Text] = TypeAdapter(Text)
    assert isinstance(adapter.validate_python({"kind": "file", "path": "a.txt"}), TextFile)
    assert isinstance(adapter.validate_python({"kind": "packages", "packages": ["numpy"]}), PackageDocumentation)
