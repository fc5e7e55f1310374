"""Licences, addresses, paths and removal lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.base import StageError
from stages.corpus.operations.operation import Draft, Drop
from stages.corpus.operations.word_lists import WordList
from tests.stages.corpus.operations.support import apply, made, rule_of

PERMISSIVE = ["MIT", "Apache-2.0", "BSD-*", "CC0-1.0"]


def kept(license_: str, **lists: list[str]) -> bool:
    return rule_of(apply("license", "x", {"license": license_}, **lists)) is None


@pytest.mark.parametrize(
    ("license_", "is_permissive", "is_copyleft"),
    [
        ("MIT", True, False),
        ("mit", True, False),
        ("BSD-3-Clause", True, False),
        ("GPL-3.0-only", False, True),
        ("AGPL-3.0-or-later", False, True),
        ("MIT OR GPL-3.0-only", True, False),
        ("GPL-2.0-only OR LGPL-2.1-only", False, True),
        ("MIT AND GPL-3.0-only", False, True),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0", True, False),
        ("MIT OR (GPL-3.0-only AND Apache-2.0)", True, False),
        ("(MIT AND GPL-3.0-only) OR (Apache-2.0 AND GPL-3.0-only)", False, True),
        ("Apache-2.0 WITH LLVM-exception", True, False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False, True),
    ],
)
def test_a_licence_is_judged_the_same_way_by_what_is_allowed_and_by_what_is_denied(
    license_: str, is_permissive: bool, is_copyleft: bool
) -> None:
    """Checks both directions, so that an inverted filter (like that of ROOTS, which kept only the GPL) can't pass."""
    assert kept(license_, allow=PERMISSIVE) is is_permissive
    assert kept(license_, deny=["GPL-*", "LGPL-*", "AGPL-*"]) is not is_copyleft


@pytest.mark.parametrize("license_", ["", "unknown", "CC BY-SA 3.0", "see LICENSE (file)", "MIT OR", "a" * 500])
def test_text_that_is_not_an_expression_is_a_license_name(license_: str) -> None:
    assert not kept(license_, allow=PERMISSIVE)
    assert kept(license_, deny=["GPL-*"])


def test_a_name_that_is_not_an_expression_can_be_listed() -> None:
    assert kept("CC BY-SA 3.0", allow=["cc by*"])
    assert not kept("CC BY-SA 3.0", deny=["CC BY-SA 3.0"])


def test_an_exception_can_be_allowed_without_its_license() -> None:
    assert kept("GPL-2.0-only WITH Classpath-exception-2.0", allow=["GPL-2.0-only WITH Classpath-exception-2.0"])
    assert not kept("GPL-2.0-only", allow=["GPL-2.0-only WITH Classpath-exception-2.0"])


def test_denied_names_win() -> None:
    assert not kept("GPL-3.0-only", allow=["*"], deny=["GPL-*"])


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://www.spam.example/a", "host_denied"),
        ("http://sub.spam.example:8080", "host_denied"),
        ("https://notspam.example/", None),
        ("https://ok.org/casino-bonus", "url_word"),
        ("https://ok.org/occasinoly", None),
        ("https://ok.org/%63asino", "url_word"),
        ("https://listed.net/x?y", "host_denied"),
        ("http://[bad", None),
        ("", None),
    ],
)
def test_addresses_are_denied_by_host_and_word(url: str, rule: str | None, tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("# hosts\nListed.net\n\n")
    found = apply(
        "urls",
        "x",
        {"url": url},
        deny_hosts=["spam.example"],
        deny_words=["casino"],
        deny_host_lists=[{"path": tmp_path / "hosts.txt"}],
    )
    assert rule_of(found) == rule


def test_addresses_can_be_allowed_and_required() -> None:
    assert rule_of(apply("urls", "x", {"url": "https://news.ok.org/1"}, allow_hosts=["ok.org"])) is None
    assert rule_of(apply("urls", "x", {"url": "https://other.org/1"}, allow_hosts=["ok.org"])) == "host_not_allowed"
    assert rule_of(apply("urls", "x", allow_hosts=["ok.org"], without_address="drop")) == "no_url"


def test_paths_go_by_globs() -> None:
    assert rule_of(apply("paths", "x", {"path": "lib/test/a.py"}, deny=["*/test/*"])) == "path_denied"
    assert rule_of(apply("paths", "x", {"path": "lib/a.py"}, deny=["*/test/*"])) is None
    assert rule_of(apply("paths", "x", {"path": "lib/a.js"}, allow=["*.py"])) == "path_not_allowed"


def test_removal_lists_drop_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "removals.txt").write_text(
        "# asked by mail\nhttps://www.blog.example/private/\ngone.org\nbooks/secret.txt\nLicenseRef-Ours\n"
    )
    function = made("removals", listed={"path": tmp_path / "removals.txt"}).function()

    def removed(**label: Any) -> bool:
        return isinstance(function(replace(Draft("x", "p"), **label)), Drop)

    assert removed(url="http://blog.example/private")
    assert removed(url="https://blog.example/private/a/b?c=d#e")
    assert not removed(url="https://blog.example/privateer")
    assert not removed(url="https://blog.example/")
    assert removed(url="https://a.gone.org/x")
    assert not removed(url="https://begone.org/x")
    assert removed(path="books/secret.txt")
    assert not removed(path="books/secret.txt.bak")
    assert removed(license="licenseref-ours")
    assert not removed(license="MIT")


def test_a_list_is_identified_by_its_content(tmp_path: Path) -> None:
    def digests(name: str) -> str:
        return WordList(path=tmp_path / name).digest(lambda path: path.read_text())

    (tmp_path / "one").write_text("a")
    (tmp_path / "two").write_text("a")
    assert digests("one") == digests("two")
    with pytest.raises(StageError, match="cannot be read"):
        digests("three")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_lists_that_are_none_are_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    operation = made("removals", listed={"path": tmp_path / "list.txt"})
    with pytest.raises(StageError, match=r"list\.txt: the list cannot be read"):
        operation.function()
