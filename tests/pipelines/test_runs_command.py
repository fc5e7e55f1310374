"""`bloomline runs`: what it lists, shows, compares and deletes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import cli, run_history, runs_command
from pipelines.errors import BloomlineError
from pipelines.store import Store, StoreConfig
from tests.pipelines import samples
from tests.pipelines.samples import remember


def test_a_list_without_runs_says_of_what_there_are_some(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(pipelines: list[str], **own: str) -> str:
        assert runs_command.show_list(store, pipelines, own) == 0
        return capsys.readouterr().out.strip()

    where = f"in {store.uri_of_root}"
    assert said(["quickstart"]) == f"There are no runs {where}."
    remember(store, tmp_path, "one", pipeline="b", sweep="20260101-000000-cafe")
    assert said(["quickstart"]) == f"The only run {where} is not of a pipeline quickstart. Pipelines: b."
    remember(store, tmp_path, "two", pipeline="a")
    none = f"None of the 2 runs {where} is"
    assert said(["quickstart"]) == f"{none} of a pipeline quickstart. Pipelines: a, b."
    assert said([], sweep="beef") == f"{none} of a sweep beef. Sweeps: 20260101-000000-cafe."
    assert said(["a"], sweep="cafe") == (
        f"{none} of a pipeline a and of a sweep cafe. Pipelines: a, b. Sweeps: 20260101-000000-cafe."
    )


def test_two_runs_are_compared(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = samples.run(tmp_path)
    remember(store, tmp_path, "one", steps=sample.steps)
    pretrain = replace(
        sample.steps[1],
        config={"learning_rate": 0.002, "prompt": "x"},
        headline=("validation_loss", 2.25),
        metrics={"validation_loss": 2.25, "learning_rate": 1e-5},
        fingerprint="f" * 64,
    )
    parameters = {"cluster": "inline", "store.root": "here"}
    remember(store, tmp_path, "two", steps=(sample.steps[0], pretrain, *sample.steps[2:]), parameters=parameters)

    def diff(*overrides: str) -> list[str]:
        own = dict(override.split("=") for override in overrides)
        assert runs_command.diff(store, ["one", "two"], own) == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    brief = diff()
    assert brief[0] == "A one done after 10.0 s"
    assert brief[3:5] == ["Configuration A B", "steps.pretrain.learning_rate 0.001 0.002"]
    assert "cluster not given inline" in brief
    assert not [line for line in brief if line.startswith("store")]
    assert brief[-4:-2] == ["Result A B Change", "pretrain: validation loss 2.5 2.25 -10.0%"]
    assert brief[-1] == "Also different: 2 metrics, 1 artifact. `all=true` shows them."
    everything = diff("all=true")
    assert everything[: len(brief) - 2] == brief[:-2]
    assert "pretrain: learning_rate none 1e-05" in everything
    assert f"pretrain {sample.steps[1].fingerprint[:12]} {'f' * 12}" in everything
    with pytest.raises(BloomlineError, match="all=yes; expected true or false"):
        diff("all=yes")


def test_two_equal_runs_do_not_differ(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(store, tmp_path, "one")
    runs_command.diff(store, ["one", "one"], {})
    assert capsys.readouterr().out.splitlines()[2:] == [
        "",
        "Their configuration, commit and versions are the same.",
        "",
        "Their headlines are the same.",
    ]


def test_what_a_failed_step_had_measured_is_not_a_result(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, pretrain, *_ = samples.run(tmp_path).steps
    lost = replace(pretrain, state="failed", headline=("validation_loss", 7.2), artifact=None)
    remember(store, tmp_path, "one")
    remember(store, tmp_path, "two", steps=(replace(corpus, artifact=None), lost), state="failed")
    assert runs_command.diff(store, ["one", "two"], {"all": "true"}) == 0
    out = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "pretrain: validation loss 2.5 none" in out
    assert out[-1] == "No step of both made an artifact."


def test_runs_of_one_configuration_that_read_other_files_are_said_to(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, *later = samples.run(tmp_path).steps
    remember(store, tmp_path, "one")
    remember(store, tmp_path, "two", steps=(replace(corpus, fingerprint="f" * 64), *later))
    assert runs_command.diff(store, ["one", "two"], {}) == 0
    out = capsys.readouterr().out
    assert "versions are the same. Their artifacts differ by the files that they read, or by code" in out


def test_a_step_that_one_run_has_alone_is_one_difference(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = samples.run(tmp_path)
    remember(store, tmp_path, "one")
    remember(store, tmp_path, "two", steps=(sample.steps[0], *sample.steps[2:]), parameters={"until": "quantize"})
    runs_command.diff(store, ["one", "two"], {})
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["steps.pretrain", "stage", "pretrain", "none"] in shown
    assert ["until", "not", "given", "quantize"] in shown
    assert ["pretrain:", "validation", "loss", "2.5", "none"] in shown
    assert len([line for line in shown if line and line[0].startswith("steps.pretrain")]) == 1


def test_steps_that_a_run_did_not_select_are_no_artifacts_of_it(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, fingerprint in (("20260101-000000-aaaa", "0" * 64), ("20260101-000000-bbbb", "1" * 64)):
        steps = samples.run(tmp_path, run_id).steps
        left = replace(steps[-1], state="unselected", fingerprint=fingerprint, artifact=None)
        remember(store, tmp_path, run_id, steps=(*steps[:-1], left))
    assert runs_command.diff(store, ["aaaa", "bbbb"], {"all": "true"}) == 0
    assert "Their artifacts are the same." in capsys.readouterr().out


def test_filters_of_the_list_are_no_overrides_for_hydra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    assert cli.run(["runs", "list", "sweep=2b78", "limit=3", "--config-dir", "conf"]) == 0
    assert cli.run(["artifacts", "gc", "unused", "older=3d", "larger=1MB", "user=ana", "--config-dir", "conf"]) == 0
    assert "There are no runs" in capsys.readouterr().out
    assert cli.run(["runs", "diff", "one", "all=maybe", "--config-dir", "conf"]) == 1
    assert "runs diff: expected two runs" in capsys.readouterr().err


def test_runs_are_listed_shown_and_deleted(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(store, tmp_path, "one", name="demo · size=1", sweep="20260101-000000-cafe")
    remember(store, tmp_path, "two", name="demo · size=2")
    runs_command.show_list(store, [], {"sweep": "cafe"})
    out = capsys.readouterr().out
    assert "demo · size=1" in out
    assert "demo · size=2" not in out
    runs_command.show(store, ["one"])
    assert "validation_loss" in capsys.readouterr().out
    runs_command.delete(store, ["one"])
    assert [run.run_id for run in run_history.runs(store)] == ["two"]
    with pytest.raises(BloomlineError, match="expected two runs"):
        runs_command.diff(store, ["two"], {})


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_name_or_error_leaves_the_list_legible(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    steps = samples.run(tmp_path).steps
    failed = replace(steps[1], state="failed", error="the file of the corpus can't be read: " + "much more " * 50)
    remember(store, tmp_path, "20260101-000000-aaaa", name="demo · " + "some.value=1 " * 40, user="ada", state="failed")
    remember(store, tmp_path, "20260101-000000-bbbb", name="demo · size=2", steps=(steps[0], failed), user="ada")
    runs_command.show_list(store, [], {})
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 7
    assert all(len(line) <= width for line in out.splitlines() if not line.startswith("No room"))
    assert "pretrain: the f" in out
    assert ("No room for User" in out) == (width == 80)
    assert "demo · some.value=1" in out


def test_a_report_that_is_not_on_this_machine_is_shown_in_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(StoreConfig(root=str(tmp_path / "shared"), state_directory=str(tmp_path / "own")))
    remember(store, tmp_path, "one", curve=2)

    def reports() -> list[str]:
        runs_command.show(store, ["one"])
        return [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  report")]

    assert reports() == []
    store.files.write(run_history.report_path("one"), b"page")
    assert reports() == [str(tmp_path / "shared" / "runs" / "one" / "report.html")]


def test_what_mlflow_has_not_received_is_not_deleted(store: Store, tmp_path: Path) -> None:
    remember(store, tmp_path, "one")
    spool = store.config.state / "runs" / "one" / "spool"
    spool.mkdir(parents=True)
    (spool / "operations.jsonl").write_text("{}\n")
    with pytest.raises(BloomlineError, match="MLflow has not received all of run one"):
        runs_command.delete(store, ["one"])
