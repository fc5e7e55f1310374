"""The sweeper in an application that has nothing else of the project, and its parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hydra_plugins.active_exploration._answer import command, rows, table, write
from hydra_plugins.active_exploration._search import Search
from hydra_plugins.active_exploration._syntax import literal, split
from hydra_plugins.active_exploration.sweeper import ActiveExplorationConfig
from stages.exploration.space import Choice, Condition, Interval
from tests.project.support import ROOT

APPLICATION = '''
import sys

class Refuse:
    """Imports of what a stand-alone application does not have."""
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pipelines", "cluster", "ray", "mlflow", "torch", "pydantic"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())

import hydra
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store(name="conf", node={"size": 8, "x": 0.5, "optimizer": "adam"})

@hydra.main(version_base="1.3", config_path=None, config_name="conf")
def main(config):
    if config.x > 0.8:
        raise RuntimeError("out of memory")
    best = {8: 0.2, 16: 0.6}[config.size]
    return 5 * (config.x - best) ** 2 + (config.optimizer == "sgd")

main()
'''


def settings(**changes: Any) -> dict[str, Any]:
    made = OmegaConf.to_container(OmegaConf.structured(ActiveExplorationConfig(budget=4, output=".")))
    assert isinstance(made, dict)
    return {str(key): value for key, value in {**made, **changes}.items()}


def created(values: dict[str, Any], arguments: list[str]) -> Search:
    return Search.create(values, arguments, lambda key: False)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(APPLICATION)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "app.py", "-m", "hydra/sweeper=active_exploration", "hydra.sweep.dir=out", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_stand_alone_application_is_explored_and_resumed(tmp_path: Path) -> None:
    space = ["size=tag(context,choice(8,16))", "x=interval(0,1)", "optimizer=choice(adam,sgd)"]
    common = ["hydra.sweeper.storage=trials.jsonl", "hydra.sweeper.batch=4", "hydra.sweeper.max_actions=64"]
    first = run(tmp_path, *space, *common, "hydra.sweeper.budget=8", "hydra.sweeper.initial=8")
    assert first.returncode == 0, first.stdout + first.stderr
    stored = (tmp_path / "trials.jsonl").read_text().splitlines()
    assert len(stored) == 8
    assert any(json.loads(line)["values"] == [] for line in stored)  # failed, and the sweep continued

    second = run(tmp_path, *space, *common, "hydra.sweeper.budget=20")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "#8 :" in second.stdout + second.stderr
    assert "#7 :" not in second.stdout + second.stderr  # what was finished does not run again
    answer = json.loads((tmp_path / "out" / "active_exploration.json").read_text())["answer"]
    for row, best in zip(answer, (0.2, 0.6), strict=True):
        assert row["action"]["x"] == pytest.approx(best, abs=0.1)
        assert row["action"]["optimizer"] == "adam"
        assert row["expected"] <= row["guaranteed"]  # of a value to minimise
        config = (tmp_path / "out" / "best" / f"{row['config']}.yaml").read_text()
        assert config.startswith("# @package _global_\n")
        assert yaml.safe_load(config) == {**row["context"], **row["action"]}


def test_sweeps_become_parameters_and_other_overrides_stay() -> None:
    fixed, space, keys = split(
        ["seed=3", "a=tag(log,interval(1e-4,1e-2))", "++b=int(interval(1,5))", "c=range(1,10,4)",
         "d=tag(context,choice(x,y))", "e=4,8"],
        {"f.g": "choice(32,16)", "h": [True, False]},
        {"i": 'choice("1",2)', "momentum": "interval(0,1)"},
        {"momentum": {"i": "1"}},
        lambda key: "" if key == "i" else "+",
    )  # fmt: skip
    assert fixed == ["seed=3"]
    assert [keys[name] for name in ("a", "b", "f.g", "i", "momentum")] == ["a", "++b", "+f.g", "i", "+momentum"]
    assert [one.name for one in space.contexts] == ["f.g", "h", "d"]
    domains = {one.name: one.domain for one in space.parameters}
    assert domains == {
        "a": Interval(1e-4, 1e-2, log=True),
        "b": Interval(1, 5, integer=True),
        "c": Choice((1, 5, 9), ordered=True),
        "d": Choice(("x", "y")),
        "e": Choice((4, 8), ordered=True),
        "f.g": Choice((16, 32), ordered=True),
        "h": Choice((True, False)),
        "i": Choice(("1", 2)),
        "momentum": Interval(0, 1),
    }
    assert {one.name: one.condition for one in space.actions}["momentum"] == Condition("i", ("1",))


@pytest.mark.parametrize("value", [None, True, 3, 1e-4, "adam", "1", "true", "a b", 'a"b', "a\\b", "x,y", ""])
def test_a_value_is_read_back_unchanged(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    read = OverridesParser.create().parse_override(f"key={literal(value)}").value()
    assert getattr(read, "text", read) == value


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (["a=1"], {}, "there is no action"),
        (["a=tag(logarithmic,interval(0,1))"], {}, "unknown tag 'logarithmic'"),
        (["a=interval(1,0)"], {}, "smaller one first"),
        (["a=choice([1],[2])"], {}, "is a list or a mapping"),
        (["a=1,2"], {"contexts": {"b": 3}}, "b=3 is not a sweep"),
        (["a=1,2"], {"conditions": {"c": {"a": 1}}}, "a condition on c"),
        (["a=1,2"], {"direction": "down"}, "direction is 'down'; expected minimize or maximize"),
        (["a=1,2"], {"batch": 0}, "batch is 0"),
        (["a=1,2"], {"budget": None}, "budget is not set"),
        (["a=1,2"], {"beta": -1.0}, "beta is -1.0"),
    ],
)
def test_what_cannot_be_explored_is_refused(arguments: list[str], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HydraException, match=message.replace("[", r"\[")):
        created(settings(**changes), arguments)


def finished(value: object, status: JobStatus = JobStatus.COMPLETED) -> JobReturn:
    return JobReturn(_return_value=value, status=status)


def test_replicates_get_their_own_seeds_and_failed_ones_are_left_out() -> None:
    search = created(settings(replicates=3, replicate_key="seed"), ["a=1,2"])
    jobs = search.jobs({"a": 1})
    assert jobs == [["a=1", f"seed={index}"] for index in range(3)]
    search.finish({"a": 1}, [finished(2.0), finished(RuntimeError(), JobStatus.FAILED), finished(float("nan"))])
    assert search.trials[0].values == (-2.0,)


def test_a_task_without_a_number_is_refused() -> None:
    search = created(settings(), ["a=1,2"])
    with pytest.raises(HydraException, match="the task returned None; expected a number"):
        search.finish({"a": 1}, [finished(None)])


def test_a_sweep_in_which_everything_failed_says_so() -> None:
    search = created(settings(), ["a=1,2"])
    search.finish({"a": 1}, [finished(RuntimeError(), JobStatus.FAILED)])
    with pytest.raises(HydraException, match="all 1 trials failed"):
        rows(search)


def test_a_storage_of_another_sweep_is_refused_and_a_torn_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    search = created(settings(storage=str(path)), ["a=1,2"])
    search.finish({"a": 1}, [finished(0.5)])
    with path.open("a") as file:
        file.write('{"configuration": {"a"')
    assert len(created(settings(storage=str(path)), ["a=1,2"]).trials) == 1
    with pytest.raises(HydraException, match=r"trials.jsonl:1: not a trial of this sweep"):
        created(settings(storage=str(path)), ["b=1,2"])
    with pytest.raises(HydraException, match="direction"):
        created(settings(storage=str(path), direction="maximize"), ["a=1,2"])


def test_the_answer_chooses_config_groups_in_defaults(tmp_path: Path) -> None:
    search = created(
        settings(output=str(tmp_path), direction="maximize", initial=0),
        ["+task.kind=tag(context,choice(a/b,a_b))", "db=choice(mysql,sqlite)"],
    )
    for kind in ("a/b", "a_b"):
        for db, value in (("mysql", 1.0), ("sqlite", 2.0)):
            search.finish({"task.kind": kind, "db": db}, [finished(value)])
    found = rows(search)
    write(search, found, lambda key: key == "db")
    configs = [yaml.safe_load((tmp_path / "best" / f"{row['config']}.yaml").read_text()) for row in found]
    assert configs == [
        {"defaults": [{"override /db": "sqlite"}, "_self_"], "task": {"kind": kind}} for kind in ("a/b", "a_b")
    ]
    assert "a/b" in table(found)


def test_the_command_that_runs_the_answer_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = ["pipeline=debug", "hydra.sweeper.trials=3", "sweep.objective=steps.a.loss", "store.root=my store"]
    monkeypatch.setattr(sys, "argv", ["bloomline", "--multirun"])
    expected = f"bloomline run --config-dir {tmp_path} +best=size_8 pipeline=debug 'store.root=my store'"
    assert command(tmp_path, "size_8", fixed) == expected
    monkeypatch.setattr(sys, "argv", ["application.py"])
    assert command(tmp_path, "size_8", []) == f"python application.py --config-dir {tmp_path} +best=size_8"
