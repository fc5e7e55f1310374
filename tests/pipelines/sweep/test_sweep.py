"""`bloomline run --multirun` as a person uses it, on the demo stages, in process and without Ray."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import cli, run_history
from pipelines.store import Store, StoreConfig
from pipelines.summary import StepSummary
from pipelines.sweep import page
from pipelines.sweep.job import SweepJob
from pipelines.sweep.nested_sweeps import as_texts
from pipelines.sweep.results import Results
from pipelines.sweep_config import SweepConfig
from stages.base import PAGE_POLICY
from tests.pipelines import samples

pytestmark = pytest.mark.usefixtures("demo_stages")

Command = Callable[..., tuple[int, str, str]]  # overrides -> exit code, standard output, error

PIPELINE = """\
# @package _global_
name: small
steps:
  a: {stage: make, text: hello}
  b: {stage: join, texts: [a]}
  c: {stage: count, text: b}
"""
OBJECTIVE = "sweep.objective=steps.b.length"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a sweep; returns its exit code, standard output and standard error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "small.yaml").write_text(PIPELINE)

    def call(*words: str) -> tuple[int, str, str]:
        here = ["hydra.searchpath=[file://conf]", "pipeline=small", "cluster=inline", "store.root=store"]
        code = cli.run(["run", "--multirun", *here, *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def store() -> Store:
    return Store(StoreConfig(root="store"))


def rows(out: str) -> list[list[str]]:
    """The rows of the table at the end."""
    lines = out.split("\nJob  ")[1].splitlines()[1:]
    return [line.split() for line in lines[: lines.index("")]]


def test_a_sweep_ends_with_a_table_that_has_the_best_job_first(sweep: Command) -> None:
    code, out, err = sweep("steps.a.times=3,1,2", OBJECTIVE, "sweep.direction=maximize")
    assert (code, err) == (0, "")
    found = rows(out)
    assert [row[:3] for row in found] == [["0", "3", "15"], ["2", "2", "10"], ["1", "1", "5"]]
    assert {run.run_id for run in run_history.runs(store())} == {row[-1] for row in found}
    assert "best first by steps.b.length (maximize)" in out
    _, again, _ = sweep("steps.a.times=3,1,2", OBJECTIVE)
    assert "3 jobs, 0 to run, 3 cached" in again
    assert [row[1] for row in rows(again)] == ["1", "2", "3"]
    assert len(run_history.runs(store())) == 6  # cached jobs are runs of the second sweep as well


def test_cached_jobs_are_runs_of_the_sweep_that_found_them(sweep: Command, capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow.tracking import MlflowClient

    sweep("steps.a.times=1,2", OBJECTIVE)
    _, out, _ = sweep("steps.a.times=1,2,3", OBJECTIVE)
    assert "3 jobs, 1 to run, 2 cached" in out
    (compare,) = re.findall("Compare: bloomline (.*)", out)
    (identity,) = re.findall("sweep=([0-9a-f-]+)", compare)
    assert cli.run([*shlex.split(compare), "pipeline=small"]) == 0
    listed = capsys.readouterr().out
    for row in rows(out):
        assert row[-1] in listed
    found = {run.run_id: run for run in run_history.runs(store()) if run.sweep == identity}
    assert found.keys() == {row[-1] for row in rows(out)}
    assert {run.headlines()["b.length"] for run in found.values()} == {5.0, 10.0, 15.0}
    page = (Path("store") / "runs" / identity / "report.html").read_text()
    assert all(f'href="../{run_id}/report.html"' in page for run_id in found)
    client = MlflowClient(f"sqlite:///{Path('store/mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (top,) = [run for run in runs if run.data.tags.get("bloomline.sweep_run") == identity]
    jobs = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == top.info.run_id]
    assert {run.data.params["a.times"]: run.data.metrics["b/length"] for run in jobs} == {"1": 5, "2": 10, "3": 15}
    assert {run.info.status for run in jobs} == {"FINISHED"}


def test_a_sweep_goes_past_jobs_that_fail_or_are_refused(sweep: Command) -> None:
    code, out, err = sweep("steps.a.times=2,-1,1", "steps.b.fail=stage,''", OBJECTIVE)
    assert (code, err) == (2, "")
    assert [row[:3] for row in rows(out)[:2]] == [["5", "1", "5"], ["1", "2", "10"]]
    assert [[word for word in row if word.isalpha() and len(word) > 2][-1] for row in rows(out)] == [
        "done", "done", "failed", "refused", "refused", "failed",
    ]  # fmt: skip
    assert "steps.a.times: -1; expected a number greater than 0." in out
    assert "b: the text is not to be joined" in out
    assert "sweep failed" in out


def test_steps_at_which_unfinished_jobs_ended_have_no_column() -> None:
    tokens = StepSummary("tokens", "tokens", "done", "", (), "f", {}, headline=("count", 3.0))
    train = StepSummary("train", "pretrain", "done", "", ("tokens",), "f", {}, headline=("loss", 1.0))
    jobs = (
        SweepJob(0, [], [], state="done", steps=(tokens, train)),
        SweepJob(1, [], [], state="stopped", steps=[tokens]),
    )
    results = Results("id", "small", SweepConfig(), "stopped", "bloomline run", 0.0, 1.0, jobs)
    assert results.measures() == ["train loss"]
    assert replace(results, jobs=jobs[1:]).measures() == ["tokens count"]


@pytest.mark.parametrize(("count", "drawn"), [(2, False), (3, True)])
def test_two_jobs_have_no_plot_of_their_values(count: int, drawn: bool, tmp_path: Path) -> None:
    step = samples.step("a", headline=("loss", 1.0))
    jobs = tuple(
        SweepJob(number, [], [f"steps.a.times={number}"], state="done", steps=[step]) for number in range(count)
    )
    results = Results("id", "small", SweepConfig(), "done", "bloomline run", 0.0, 1.0, jobs)
    html = page.render(results, Store(StoreConfig(root=str(tmp_path))))
    assert ("Values and results" in html) == drawn


def test_the_runs_of_a_sweep_know_it_and_its_page_shows_them(sweep: Command) -> None:
    sweep("steps.a.times=1,2", "steps.b.separator=x,y", OBJECTIVE)
    runs = run_history.runs(store())
    assert {run.name for run in runs} == {
        f"small · times={times} separator={separator}" for times in (1, 2) for separator in "xy"
    }
    (identity,) = {run.sweep for run in runs}
    page = (Path("store") / "runs" / str(identity) / "report.html").read_text()
    assert PAGE_POLICY in page
    assert "b length by times and separator" in page
    assert not re.search(r"<script|https?://|url\(", page.replace('href="data:,"', ""))
    for run in runs:
        assert f'href="../{run.run_id}/report.html"' in page
        assert (Path("store") / "runs" / run.run_id / "report.html").exists()


def test_what_the_sweeper_leaves_is_not_kept_if_it_is_hydras(sweep: Command) -> None:
    sweep("steps.a.times=1,2")
    assert not list(Path("store").rglob("multirun.yaml"))
    assert not Path("multirun").exists()


def test_optunas_sweeper_works_unchanged(sweep: Command) -> None:
    sampler = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1"]
    search = ["hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "steps.a.times=range(1,4)"]
    code, out, err = sweep(*sampler, *search, "steps.b.fail=choice('','stage')", OBJECTIVE)
    assert code in (0, 1), err
    assert "Traceback" not in out + err
    assert len(rows(out)) == 4
    (best,) = Path("store").glob("runs/*/sweeper/optimization_results.yaml")
    assert float(re.findall(r"best_value: (.*)", best.read_text())[0]) == float(rows(out)[0][2])


def test_a_sweeper_that_compares_needs_an_objective(sweep: Command) -> None:
    code, _, err = sweep("hydra/sweeper=optuna", "steps.a.times=range(1,4)")
    assert code == 1
    assert "OptunaSweeper needs a number to compare jobs by" in err
    assert "sweep.objective=steps.evaluate.bits_per_byte" in err


def test_an_objective_that_no_job_has_is_said(sweep: Command) -> None:
    code, out, _ = sweep("steps.a.times=1,2", "sweep.objective=steps.b.lenght")
    assert code == 0
    assert "step b has no metric 'lenght'. It has length." in " ".join(out.split())


def test_a_job_that_fails_after_its_objective_was_measured_has_none(sweep: Command) -> None:
    last = "+steps.d={stage: join, texts: [b], fail: stage}"
    code, out, _ = sweep("steps.a.times=1,2", last, OBJECTIVE)
    assert code == 1
    assert "no job has steps.b.length: none has finished." in " ".join(out.split())
    assert "best first" not in out
    assert [row[2] for row in rows(out)] == ["failed", "failed"]


def test_hydra_checks_a_list_of_values_before_a_sweep_begins(sweep: Command) -> None:
    code, out, err = sweep("steps.a.times=1,2", "store=local,nowhere", OBJECTIVE)
    assert (code, out) == (2, "")
    assert "Nothing was started.\nstore: 'nowhere'; expected a file of conf/store/." in err


def explored(actions: str) -> list[str]:
    contexts = "sweep.contexts={steps.a.text: choice(hi, hello)}"
    return ["hydra/sweeper=active_exploration", "sweep.budget=4", OBJECTIVE, contexts, f"sweep.actions={{{actions}}}"]


def test_a_search_goes_past_a_value_that_cannot_be_composed(sweep: Command) -> None:
    code, out, err = sweep(*explored("store: choice(local, nowhere)"))
    assert (code, err) == (2, "")
    assert {row[-1] for row in rows(out)} > {"refused"}  # the others end with the id of their run
    assert len(rows(out)) == 4
    assert "is refused: store: 'nowhere'; expected a file of conf/store/." in out


def test_a_search_without_a_success_does_not_say_that_nothing_was_started(sweep: Command) -> None:
    code, out, err = sweep(*explored("steps.a.times: choice(1, 2)"), "steps.b.fail=stage")
    assert code == 1
    assert len(rows(out)) == 4
    assert err == (
        "The sweep has ended: active exploration: all 4 trials failed, so there is no answer. See the errors above.\n"
    )


def test_active_exploration_finds_the_best_values_of_every_context(sweep: Command) -> None:
    explore = [
        "hydra/sweeper=active_exploration", "sweep.budget=8", "sweep.parallel=2", "sweep.direction=maximize", OBJECTIVE,
        "sweep.contexts={steps.a.text: choice(hi, hello)}", "sweep.actions={steps.a.times: choice(-1, 1, 2, 3)}",
    ]  # fmt: skip
    code, out, err = sweep(*explore)
    assert code == 2  # the jobs with -1 are refused, and the sweep continues
    assert "UserWarning" not in err
    assert len(rows(out)) == 8
    (answer,) = Path("store").glob("runs/*/sweeper/active_exploration.json")
    assert len(list(Path("store").rglob("active_exploration.json"))) > 1  # in MLflow as well
    table = json.loads(answer.read_text())["answer"]
    assert [(row["context"]["steps.a.text"], row["action"]["steps.a.times"]) for row in table] == [
        ("hi", 3),
        ("hello", 3),
    ]
    page = (answer.parents[1] / "report.html").read_text()
    assert '<h2 id="answer-0-head">Active exploration</h2>' in page
    assert (answer.parent / "best" / "text_hello.yaml").exists()
    _, again, _ = sweep(*explore)  # what is finished is cached: only what was refused is tried again
    assert "starts:" not in again


def test_a_sweep_in_a_mapping_becomes_a_text() -> None:
    given = ["sweep.actions={a.b: tag(log, interval(1,2)), c: 'choice(1)', d: [1,2]}", "x={a: choice(1,2)}"]
    assert as_texts(given) == [
        "sweep.actions={a.b: \"tag(log, interval(1,2))\", c: 'choice(1)', d: [1,2]}", "x={a: choice(1,2)}",
    ]  # fmt: skip


def test_no_secret_is_shown_or_stored(sweep: Command) -> None:
    _, out, err = sweep("steps.a.times=1,2", "store.options.secret=hunter2hunter2", "steps.b.fail=stage")
    assert "hunter2hunter2" not in out + err
    kept = [path for path in Path("store").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"hunter2hunter2" in path.read_bytes()]


def test_the_jobs_hang_under_one_run_in_mlflow(sweep: Command) -> None:
    from mlflow.tracking import MlflowClient

    sweep("steps.a.times=1,2", OBJECTIVE)
    client = MlflowClient(f"sqlite:///{Path('store/mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (top,) = [run for run in runs if "bloomline.sweep_run" in run.data.tags]
    jobs = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == top.info.run_id]
    assert top.data.params == {"a.times": "1, 2", "sweep.objective": "steps.b.length"}
    assert top.data.metrics["best/b/length"] == 5.0
    assert top.info.status == "FINISHED"
    assert "| 0 | 1 | 5 |" in top.data.tags["mlflow.note.content"]
    assert {run.info.run_name: run.data.params["a.times"] for run in jobs} == {
        "small · times=1": "1",
        "small · times=2": "2",
    }
    assert {run.data.tags["bloomline.sweep"] for run in jobs} == {top.data.tags["bloomline.sweep_run"]}
    assert all(run.data.tags["mlflow.user"] and run.data.metrics["b/length"] for run in jobs)
    steps = [run for run in runs if run.data.tags.get("mlflow.parentRunId") in {job.info.run_id for job in jobs}]
    assert len(steps) == 6


def test_a_cluster_out_of_reach_is_said_once(sweep: Command) -> None:
    code, out, err = sweep("steps.a.text=x,y", "cluster=remote", "cluster.address=127.0.0.1:9")
    assert code == 1
    assert (out + err).count("Nothing answers at cluster.address=127.0.0.1:9") == 1
