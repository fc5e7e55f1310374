"""Commands that only read a store work for a pipeline of which values must be set before it can run."""

from __future__ import annotations

from pathlib import Path

import pytest

import bloomline
from pipelines import cli, outline
from pipelines.errors import BloomlineError, ConfigError
from tests.pipelines import demo

PIPELINE = """\
# @package _global_
name: unset
text: ???
store: {root: store}
steps:
  a: {stage: make, text: "${text}"}
  b: {stage: join, texts: [a], separator: "${oc.env:NO_SUCH_SEPARATOR}"}
"""
UNSET = ["hydra.searchpath=[file://conf]", "pipeline=unset", "cluster=inline"]
GIVEN = [*UNSET, "text=hello", "steps.b.separator=-"]

pytestmark = pytest.mark.usefixtures("demo_stages")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "unset.yaml").write_text(PIPELINE)


def test_what_a_store_has_of_a_pipeline_is_read_without_the_values_of_its_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigError, match="text: not set"):
        bloomline.compose(UNSET)
    made = bloomline.run(GIVEN)
    for words in (
        ["artifacts", "list"],
        ["artifacts", "show", "a"],
        ["artifacts", "verify"],
        ["artifacts", "gc", "unused"],
        ["runs", "list", "unset"],
        ["runs", "show", "latest"],
        ["logs", "latest"],
    ):
        assert cli.run([*words, *UNSET]) == 0, words
        assert cli.run([*words, "--config-dir", "conf", "pipeline=unset"]) == 0, words
    assert made.id in capsys.readouterr().out
    assert [run.id for run in bloomline.runs(overrides=UNSET)] == [made.id]
    text = bloomline.load("a", overrides=UNSET)
    assert isinstance(text, demo.Text)
    assert text.text == "hello"
    with pytest.raises(BloomlineError, match=r"has no step 'c'\. It has a, b"):
        bloomline.load("c", overrides=UNSET)


@pytest.mark.parametrize(
    ("override", "refusal"),
    [
        ("store.rot=x", "store.rot: unknown field 'rot'"),
        ("store.root=???", "store.root: not set; expected the address of a bucket"),
        ("portt=1", "portt: no such key"),
    ],
)
def test_its_settings_are_checked_all_the_same(override: str, refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal):
        outline.compose([*UNSET, override])


def test_a_setting_may_be_that_of_a_step() -> None:
    assert outline.compose([*UNSET, "steps.b.port=8123", "port=${steps.b.port}"]).settings.port == 8123


def test_a_secret_among_its_settings_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE_OF_RUNS", "not-a-port-but-private")
    with pytest.raises(ConfigError) as refused:
        outline.compose([*UNSET, "port=${oc.env:PLACE_OF_RUNS}"])
    assert "not-a-port-but-private" not in str(refused.value)
