"""The cache of compositions: it is used, it is never out of date, and it holds nothing from the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipelines import composition_cache, config
from pipelines.config import Composition

pytestmark = pytest.mark.usefixtures("demo_stages")

PIPELINE = """\
# @package _global_
name: small
steps:
  a: {stage: make, text: "TEXT"}
  b: {stage: count, text: a}
"""


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write(tmp_path / "conf", "hello")


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of every composition by Hydra."""
    calls: list[str] = []
    original = config._compose

    def counted(overrides: list[str], must_be_whole: bool = True) -> object:
        calls.append(" ".join(overrides))
        return original(overrides, must_be_whole)

    monkeypatch.setattr(config, "_compose", counted)
    return calls


def write(directory: Path, text: str, name: str = "small") -> Path:
    path = directory / "pipeline" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PIPELINE.replace("TEXT", text.replace('"', '\\"')))
    return directory


def compose(conf: Path, *overrides: str) -> Composition:
    return config.compose([f"hydra.searchpath=[file://{conf}]", "pipeline=small", *overrides])


def text_of(composition: Composition) -> str:
    return str(composition.graph.steps["a"].stage.text)  # type: ignore[attr-defined]


def entries(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_composition_is_remembered_until_something_it_depends_on_changes(conf: Path, composed: list[str]) -> None:
    first = compose(conf)
    assert compose(conf).values == first.values
    assert len(composed) == 1
    write(conf, "other")
    assert text_of(compose(conf)) == "other"
    assert len(composed) == 2
    compose(conf, "steps.a.times=2")
    assert len(composed) == 3


def test_another_working_directory_has_another_entry(
    conf: Path, composed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in (conf, conf.parent):
        monkeypatch.chdir(directory)
        compose(conf)
    assert len(composed) == 2


def test_a_file_below_a_linked_directory_is_followed(conf: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "pipeline").symlink_to(conf / "pipeline")
    compose(linked)
    write(conf, "other")
    assert text_of(compose(linked)) == "other"
    (linked / "pipeline").unlink()
    (linked / "pipeline").symlink_to(write(tmp_path / "third", "third") / "pipeline")
    assert text_of(compose(linked)) == "third"


def test_a_new_file_that_comes_first_in_the_search_path_is_found(conf: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    where = f"hydra.searchpath=[file://{first},file://{conf}]"
    assert text_of(config.compose([where, "pipeline=small"])) == "hello"
    write(first, "first")
    assert text_of(config.compose([where, "pipeline=small"])) == "first"


def _lock(folder: Path) -> None:
    (folder / ".#small.yaml").symlink_to("me@host.1:2")


def _folder(folder: Path) -> None:
    (folder / "old.yaml").mkdir()


def _latin1(folder: Path) -> None:
    (folder / "old.yaml").write_bytes(b"# caf\xe9\nname: old\n")


@pytest.mark.parametrize("neighbour", [_lock, _folder, _latin1])
def test_a_file_that_is_not_used_changes_nothing(
    conf: Path, composed: list[str], neighbour: Callable[[Path], None]
) -> None:
    compose(conf)
    neighbour(conf / "pipeline")
    compose(conf)
    assert len(composed) == 1


ENVIRONMENT = [
    "${oc.env:DEMO}",
    "${ oc.env:DEMO }",
    '${oc.env:"DEMO"}',
    "${oc.env:${name}}",
    "a ${oc.env:NOT_THERE,${oc.env:DEMO}} b",
    "${oc.decode:${oc.env:DEMO}}",
]


@pytest.mark.parametrize("text", ENVIRONMENT)
def test_the_environment_is_read_by_each_command_and_never_written(
    conf: Path, tmp_path: Path, composed: list[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    write(conf, text)
    for value in ("marker_one", "marker_two"):
        monkeypatch.setenv("DEMO", value)
        monkeypatch.setenv("small", value)
        assert value in text_of(compose(conf))
    assert len(composed) == 1
    [entry] = entries(tmp_path)
    assert b"marker" not in entry.read_bytes()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert entry.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_the_environment_names_is_not_remembered(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = conf / "pipeline" / "chosen.yaml"
    chosen.write_text(PIPELINE.replace("name", "defaults: [override /cluster: '${oc.env:KIND}', _self_]\nname", 1))
    for kind in ("inline", "local"):
        monkeypatch.setenv("KIND", kind)
        composition = config.compose([f"hydra.searchpath=[file://{conf}]", "pipeline=chosen"])
        assert composition.settings.cluster.kind == kind
    assert entries(tmp_path) == []


@pytest.mark.parametrize("text", ["${now:%f}", "${ now:%f}", "${demo:}"])
def test_what_only_hydra_or_a_package_resolves_is_not_remembered(
    conf: Path, tmp_path: Path, composed: list[str], text: str
) -> None:
    write(conf, text)
    OmegaConf.register_new_resolver("demo", lambda: os.urandom(8).hex(), replace=True)
    assert text_of(compose(conf)) != text_of(compose(conf))
    assert len(composed) == 2
    assert entries(tmp_path) == []


def test_a_damaged_cache_is_ignored(conf: Path, tmp_path: Path) -> None:
    first = compose(conf)
    for damage in ("{", "[]", '{"paths": 3}'):
        for entry in entries(tmp_path):
            entry.write_text(damage)
        assert compose(conf).values == first.values


def test_a_home_that_can_not_be_written_to_is_not_an_error(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    assert text_of(compose(conf)) == text_of(compose(conf)) == "hello"


def test_an_entry_is_found_again_however_often_a_directory_is_on_the_search_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = composition_cache._path(["pipeline=quickstart"])
    monkeypatch.setattr(sys, "path", [*sys.path, *sys.path])
    assert composition_cache._path(["pipeline=quickstart"]) == before
