"""A configuration that names code is refused before Hydra runs any of it, with Hydra's own flags and without."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import cli, config
from pipelines.errors import ConfigError
from pipelines.hydra_code import check_composed

pytestmark = pytest.mark.usefixtures("demo_stages")

PIPELINE = """\
# @package _global_
name: small
steps:
  a: {stage: make, text: hello}
"""
MARK = "mark_of_code"
CODE = f"import pathlib\npathlib.Path({MARK!r}).touch()\n"

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def bloomline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Writes a pipeline with some more lines, and runs a command line; returns its exit code and output."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for file in ("foreign_code.py", "foreign_package/__init__.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(CODE)
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)

    def call(lines: str, *words: str) -> tuple[int, str]:
        (tmp_path / "conf" / "pipeline" / "small.yaml").write_text(PIPELINE + lines)
        own = [] if any("searchpath" in word for word in words) else ["hydra.searchpath=[file://conf]"]
        code = cli.run([*words[:1], *own, "pipeline=small", "cluster=inline", *words[1:]])
        captured = capsys.readouterr()
        assert not (tmp_path / MARK).exists()
        assert not {"foreign_code", "foreign_package"} & sys.modules.keys()
        return code, captured.out + captured.err

    return call


CALLBACK = "hydra:\n  callbacks:\n    mine: {_target_: foreign_code.Callback}\n"
HANDLER = "hydra:\n  job_logging:\n    handlers:\n      x: {class: foreign_code.Handler}\n"
FACTORY = "hydra:\n  hydra_logging:\n    filters:\n      x: {'()': foreign_code.Filter}\n"
ELSEWHERE = "handler: {class: foreign_code.Handler}\nhydra:\n  job_logging:\n    handlers:\n      x: ${handler}\n"
MADE = "hydra:\n  job_logging:\n    handlers:\n      x: \"${oc.create:'{class: foreign_code.Handler}'}\"\n"
ANYWHERE = "steps_of_others: [{inner: {_target_: foreign_code.Anything}}]\n"


@pytest.mark.parametrize("words", [["plan"], ["plan", "--multirun", "steps.a.times=1,2"]])
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (CALLBACK, "conf/pipeline/small.yaml:7: hydra.callbacks.mine._target_: 'foreign_code.Callback'"),
        (HANDLER, "conf/pipeline/small.yaml:8: hydra.job_logging.handlers.x.class: 'foreign_code.Handler'"),
        (FACTORY, "conf/pipeline/small.yaml:8: hydra.hydra_logging.filters.x.(): 'foreign_code.Filter'"),
        (ELSEWHERE, "hydra.job_logging.handlers.x.class: 'foreign_code.Handler'"),
        (MADE, "hydra.job_logging.handlers.x: "),
        (ANYWHERE, "conf/pipeline/small.yaml:5: steps_of_others[0].inner._target_: 'foreign_code.Anything'"),
        ("hydra:\n  job:\n    env_set: {LD_PRELOAD: x.so}\n", "hydra.job.env_set.LD_PRELOAD"),
    ],
)
def test_files(bloomline: Command, lines: str, said: str, words: list[str]) -> None:
    code, out = bloomline(lines, *words)
    assert code == 2
    assert said in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+hydra.callbacks.x._target_=foreign_code.Callback", "hydra.callbacks.x._target_: 'foreign_code.Callback'"),
        ("hydra.sweeper._target_=foreign_code.Sweeper", "hydra.sweeper._target_: 'foreign_code.Sweeper'"),
        ("hydra.launcher._target_=foreign_code.Launcher", "hydra.launcher._target_: 'foreign_code.Launcher'"),
        ("+x={_target_: foreign_code.Anything}", "x._target_: 'foreign_code.Anything'"),
    ],
)
@pytest.mark.parametrize("words", [["plan"], ["plan", "--multirun"]])
def test_overrides(bloomline: Command, words: list[str], override: str, said: str) -> None:
    code, out = bloomline("", *words, override)
    assert code == 2
    assert said in out


@pytest.mark.parametrize("words", [["plan"], ["plan", "--multirun"]])
def test_a_package_is_not_searched(bloomline: Command, words: list[str]) -> None:
    code, out = bloomline("", *words, "hydra.searchpath=[file://conf,pkg://foreign_package]")
    assert code == 2
    assert "hydra.searchpath: the package pkg://foreign_package, whose code would run" in out


def test_a_sweep_with_hydras_own_plugins_is_accepted(bloomline: Command) -> None:
    code, out = bloomline("", "plan", "--multirun", "steps.a.times=1,2")
    assert code == 0, out


def test_resolvers_may_make_values_of_steps(bloomline: Command) -> None:
    code, out = bloomline("", "plan", "steps.a.times=${oc.decode:'2'}", 'steps.a.style="${oc.create:{upper: true}}"')
    assert code == 0, out


@pytest.mark.parametrize(
    ("sweeper", "accepted"),
    [
        ({"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"}, True),
        ({"_target_": "hydra_plugins.hydra_ax_sweeper.ax_sweeper.AxSweeper"}, True),
        ({"_target_": "hydra_plugins.hydra_nevergrad_sweeper.nevergrad_sweeper.NevergradSweeper"}, True),
        ({"_target_": "hydra_plugins.active_exploration.sweeper.Sweeper"}, True),
        ({"sampler": {"_target_": "optuna.samplers.TPESampler"}}, True),
        ({"sampler": {"_target_": "optuna.samplers.evil.Sampler"}}, False),
        ({"_target_": "hydra_plugins.other.Sweeper"}, False),
        ({"custom_search_space": "foreign_code.space"}, False),
        ({"custom_search_space": None}, True),
    ],
)
def test_sweepers(sweeper: dict[str, object], accepted: bool) -> None:
    from omegaconf import OmegaConf

    composed = OmegaConf.create({"hydra": {"sweeper": sweeper}})
    if accepted:
        check_composed(composed, ())
    else:
        with pytest.raises(ConfigError, match="code that would run"):
            check_composed(composed, ())


def test_every_shipped_configuration_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert config.compose_values(["pipeline=quickstart"])["name"] == "quickstart"
