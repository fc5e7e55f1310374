"""The command line as a person uses it, on the demo stages, in process and without Ray."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines import cli, run_history
from pipelines.store import Store, StoreConfig
from pipelines.store.lease import Leases

pytestmark = pytest.mark.usefixtures("demo_stages")

Command = Callable[..., tuple[int, str, str]]  # words of a command line -> exit code, standard output, error

PIPELINE = """\
# @package _global_
name: small
steps:
  a: {stage: make, text: hello}
  b: {stage: join, texts: [a]}
  c: {stage: count, text: b}
"""


@pytest.fixture
def bloomline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line; returns its exit code, standard output and standard error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "small.yaml").write_text(PIPELINE)

    def call(*words: str) -> tuple[int, str, str]:
        here = ["hydra.searchpath=[file://conf]", "pipeline=small", "cluster=inline", "store.root=store"]
        code = cli.run([*words[:1], *here, *words[1:]])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_port_that_is_taken_refuses_a_run_before_anything_is_computed(bloomline: Command, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        code, _, error = bloomline("run", f"port={listener.getsockname()[1]}")
    assert code == 1
    assert f"is taken by process {os.getpid()} " in error
    assert not (tmp_path / "store" / "records").exists()


def test_plan_run_and_run_again(bloomline: Command, tmp_path: Path) -> None:
    code, out, _ = bloomline("plan")
    assert code == 0
    assert out.count("never run") == 3
    assert not (tmp_path / "store" / "records").exists()
    code, out, _ = bloomline("run")
    assert code == 0, out
    assert "small: done" in out
    assert "report.html" in out
    for command in out.split("Next:")[1].strip().splitlines():
        assert "store.root=" in command, command
    assert (tmp_path / "store" / "mlflow.db").exists()
    report = next((tmp_path / "store" / "runs").glob("*/report.html"))
    assert "<svg" in report.read_text()
    runs = list((tmp_path / "store" / "runs").iterdir())
    code, out, _ = bloomline("run")
    assert code == 0
    assert "Everything is cached: nothing was started." in out
    assert str(report.relative_to(tmp_path)) in out
    assert list((tmp_path / "store" / "runs").iterdir()) == runs
    code, out, _ = bloomline("plan", "steps.b.separator=+")
    assert "separator ' ' -> '+'" in out
    code, out, _ = bloomline("run", "only=b", "steps.b.separator=+")
    assert code == 0
    assert "Not selected: c" in out


def test_a_no_op_run_imports_nothing_heavy(bloomline: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    bloomline("run")
    heavy = ("ray", "torch", "mlflow", "hydra", "matplotlib", "pyarrow")
    for name in [name for name in sys.modules if name.split(".")[0] in heavy]:
        monkeypatch.delitem(sys.modules, name)
    code, _, _ = bloomline("run")
    assert code == 0
    assert not [name for name in heavy if name in sys.modules]


def test_a_blocked_plan_starts_nothing(bloomline: Command, tmp_path: Path) -> None:
    for verb in ("plan", "run"):
        code, out, _ = bloomline(verb, "steps.b.gpus=8")
        assert code == 3
        assert "8 GPUs" in out
        assert "Blocked" in out
    assert not (tmp_path / "store" / "runs").exists()


def test_a_failure_says_what_to_do(bloomline: Command) -> None:
    code, out, _ = bloomline("run", "steps.b.fail=stage")
    assert code == 1
    assert "the text is not to be joined" in out
    assert "needs b, which failed" in out
    verbs = [line.split()[1] for line in out.split("Next:\n")[1].splitlines()]
    assert verbs == ["ui", "run"], "it has printed nothing, so that there is no log to look at"
    code, out, _ = bloomline("run")
    assert code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rum"], "Did you mean 'run'?"),
        (["run", "steps.a.txet=x"], "Did you mean 'text'?"),
        (["run", "from=d"], "expected the name of a step"),
        (["artifacts", "lst"], "Did you mean 'list'?"),
        (["run", "steps.bb.separator=x"], "steps.bb.stage: missing; expected the name of a stage"),
        (["run", "only=b"], "needs a, which is not in the store and not selected: use until=b instead"),
        (["run", "only=b", "force=a"], "force: 'a'; expected a step that `from`, `until` and `only` select"),
        (["run", "store.root=ü"], """expected the value in quotes. As one text, in a shell: 'store.root="ü"'."""),
        (["artifacts", "show", "nothing"], "no artifact of a step 'nothing'"),
        (["submit"], "cluster=remote"),
        (["serve", "until=a"], ""),
    ],
)
def test_one_clear_error(bloomline: Command, words: Sequence[str], said: str) -> None:
    code, out, err = bloomline(*words)
    assert code != 0
    assert said in err or said in out
    assert "Traceback" not in err + out


def test_a_disk_that_is_full_is_one_line_and_never_hides_how_a_run_ended(
    bloomline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.report import page
    from pipelines.store.lease import Leases

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(page, "render", full)
        code, out, err = bloomline("run")
    assert (code, err) == (0, "")
    assert "small: done" in out
    assert "Note: There is no report: No space left on device" in " ".join(out.split())
    assert "Report:" not in out

    with monkeypatch.context() as patch:
        patch.setattr(Leases, "acquire", full)
        code, out, err = bloomline("run", "force=a")
    assert code == 1
    assert "No space left on device. Free some space" in " ".join(out.split())
    assert "Traceback" not in out + err


def test_a_fault_in_drawing_the_report_does_not_hide_how_a_run_ended(
    bloomline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.report import page

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(page, "render", broken)
    code, out, err = bloomline("run")
    assert (code, err) == (0, "")
    assert "small: done" in out
    assert "Note: There is no report: ZeroDivisionError while it was drawn: division by zero" in " ".join(out.split())


def test_multirun_shares_what_is_upstream(bloomline: Command, tmp_path: Path) -> None:
    code, _, err = bloomline("run", "--multirun", "steps.b.separator=x,y", f"steps.b.trace={tmp_path}/trace")
    assert code == 0, err
    made = [path.name.split("-")[0] for path in (tmp_path / "store" / "artifacts").glob("*/*")]
    assert sorted(made) == ["a", "b", "b", "c", "c"]


def test_a_refused_job_says_that_nothing_was_started_only_if_none_was_before(bloomline: Command) -> None:
    code, _, err = bloomline("plan", "--multirun", "steps.a.times=2,-1")
    assert code == 2
    assert err.startswith("The configuration is not valid.\nsteps.a.times: -1")
    code, _, err = bloomline("plan", "--multirun", "steps.a.times=-1,2")
    assert code == 2
    assert err.startswith("The configuration is not valid. Nothing was started.\nsteps.a.times: -1")


def test_hydras_own_flags(bloomline: Command) -> None:
    code, out, _ = bloomline("run", "--cfg", "job")
    assert code == 0
    assert "stage: make" in out
    code, out, _ = bloomline("run", "--info", "defaults")
    assert "pipeline/small" in out
    code, out, _ = bloomline("run", "--help")
    assert "bloomline" in out


def test_a_directory_of_configurations_that_does_not_exist_is_refused(bloomline: Command, tmp_path: Path) -> None:
    code, out, err = bloomline("plan", "--config-dir", "nosuch")
    assert (code, out, err) == (1, "", f"--config-dir: no directory {tmp_path / 'nosuch'}.\n")


@pytest.mark.parametrize("flags", [[], ["--config-dir", "conf"]])
def test_content_that_is_not_there_is_one_line_that_names_the_key(bloomline: Command, flags: list[str]) -> None:
    for verb in ("plan", "run"):
        code, _, err = bloomline(verb, *flags, "+steps.a.source.path=conf")
        assert code == 1
        assert err == "steps.a.source: conf is a folder; expected a file\n"


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in cli.VERBS:
        assert verb in out
    assert cli.run([]) == 2


@pytest.mark.parametrize("verb", ["artifacts", "stages", "pipelines", "new", "ui"])
def test_help_for_a_verb_that_runs_no_pipeline_is_its_usage(bloomline: Command, verb: str) -> None:
    code, out, _ = bloomline(verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: bloomline {verb}")
    assert len(out.splitlines()) < 10


def test_serve_refuses_before_it_runs_a_pipeline_without_something_to_serve(bloomline: Command, tmp_path: Path) -> None:
    code, out, err = bloomline("serve")
    assert (code, out) == (1, "")
    assert err == "Pipeline small has no step that makes something to serve: add a `deploy` step.\n"
    assert not (tmp_path / "store" / "records").exists()


def test_serve_refuses_a_selection_without_something_to_serve(bloomline: Command, tmp_path: Path) -> None:
    pipeline = tmp_path / "conf" / "pipeline" / "small.yaml"
    pipeline.write_text(PIPELINE + '  d: {stage: "tests.stages.serving.greeter:MakeGreeter"}\n')
    code, _, err = bloomline("serve", "until=b")
    assert (code, err) == (1, "`from`, `until` and `only` select no step that makes something to serve: d.\n")


def test_completion(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def completed(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        assert cli.run(["-sc", "query=bash"]) == 0
        return capsys.readouterr().out.split()

    assert completed("bloomline ") == list(cli.VERBS)
    assert completed("bloomline pl") == ["plan"]
    assert "cluster=inline" in completed("bloomline run cluster=in")
    assert completed("bloomline artifacts ") == ["list", "show", "verify", "gc"]
    assert completed("bloomline artifacts v") == ["verify"]
    assert "store=s3" in completed("bloomline artifacts list store=")


def test_artifacts(bloomline: Command, tmp_path: Path) -> None:
    assert "There are no artifacts in" in bloomline("artifacts", "list")[1]
    bloomline("run")
    _, out, _ = bloomline("artifacts", "list")
    assert all(name in out for name in ("small", "Text", "Number", "length 5"))
    assert "…" not in out
    code, out, _ = bloomline("artifacts", "show", "b")
    assert code == 0
    assert "separator" in out
    assert "undamaged" in out
    code, out, _ = bloomline("artifacts", "verify")
    assert code == 0
    assert "3 artifacts, 0 damaged" in out
    file = next((tmp_path / "store" / "artifacts" / "join").glob("b-*/text.txt"))
    file.chmod(0o644)
    file.write_text("damage")
    code, out, _ = bloomline("artifacts", "verify", "b")
    assert code == 1
    assert "text.txt has 6 bytes instead of 5" in out
    assert bloomline("artifacts", "show", "b")[0] == 1
    bloomline("run", "steps.b.separator=+")
    assert "separator=+" in bloomline("artifacts", "list", "b")[1]
    code, out, _ = bloomline("artifacts", "gc", "unused", "dry-run")
    assert "would remove" in out
    assert len(list((tmp_path / "store" / "records").iterdir())) == 5
    assert "Nothing was removed." in bloomline("artifacts", "gc", "unused")[1]
    for rule in ("older=1h", "larger=1MB"):
        assert "0 B were freed" in bloomline("artifacts", "gc", rule, "remove")[1]
    assert len(list((tmp_path / "store" / "records").iterdir())) == 5
    bloomline("artifacts", "gc", "older=0h", "larger=1B", "remove")
    assert len(list((tmp_path / "store" / "records").iterdir())) == 3
    assert bloomline("run", "steps.b.separator=+")[1].count("cached") >= 3


def test_artifacts_with_hydras_flags_and_names(bloomline: Command) -> None:
    bloomline("run")
    code, out, err = bloomline("artifacts", "list", "--config-dir", "conf", "b")
    assert code == 0, err
    assert "Count" not in out
    heads, _, left_out = out.splitlines()
    assert heads.startswith("Step ")
    assert left_out.startswith("No room for By run: ")
    assert bloomline("artifacts", "gc", "everything")[0] == 1
    for rule, said in (("older=soon", "a time such as 12h"), ("larger=1KB", "a size such as 500MB")):
        assert said in bloomline("artifacts", "gc", rule)[2]


def test_a_steps_name_stands_for_the_artifact_of_the_named_pipeline(bloomline: Command, tmp_path: Path) -> None:
    small = (tmp_path / "conf" / "pipeline" / "small.yaml").read_text()
    (tmp_path / "conf" / "pipeline" / "other.yaml").write_text(small.replace("name: small", "name: other"))
    (tmp_path / "conf" / "pipeline" / "third.yaml").write_text(small.replace("name: small", "name: third"))
    bloomline("run", "pipeline=small")
    bloomline("run", "pipeline=other", "steps.b.separator=+")  # shares step a with small
    for name, separator in (("small", "separator\n"), ("other", "+")):
        code, out, err = bloomline("artifacts", "show", "b", f"pipeline={name}")
        assert (code, err) == (0, "")
        assert f"of pipeline {name}" in out
        assert separator in out
        shown = bloomline("artifacts", "list", f"pipeline={name}")[1]
        assert len(shown.splitlines()) == 5  # heads, three artifacts, and that there is no room for "By run"
        assert "2 artifacts, 0 damaged" in bloomline("artifacts", "verify", "a", "b", f"pipeline={name}")[1]
    code, out, err = bloomline("artifacts", "show", "b", "pipeline=third")
    assert code == 1
    assert "no artifact of a step 'b' of pipeline third. There is one of pipeline other, small." in err
    bloomline("run", "pipeline=other", "steps.b.separator=-")
    assert "0 B would be freed" in bloomline("artifacts", "gc", "unused", "dry-run", "pipeline=small")[1]
    assert "would remove" in bloomline("artifacts", "gc", "unused", "dry-run", "pipeline=other")[1]


def test_gc_keeps_what_a_run_works_on_and_what_a_stopped_step_resumes_from(bloomline: Command, tmp_path: Path) -> None:
    bloomline("run")
    store = Store(StoreConfig(root=str(tmp_path / "store")))
    record = store.latest("small", "b")
    assert record is not None
    store.files.remove(f"records/{record.fingerprint}.json")
    staged, scratch = store.stage(record.fingerprint), store.scratch(record.fingerprint)
    for directory in (staged, scratch, tmp_path / "store" / record.location):
        os.utime(directory, (0, 0))
    left = [tmp_path / "store" / record.location, staged, scratch]
    leases = Leases(store.files, 30.0, "a run in progress")
    assert leases.acquire(record.fingerprint) is None
    assert "0 B were freed" in bloomline("artifacts", "gc", "unused", "scratch", "remove")[1]
    assert all(path.is_dir() for path in left)
    leases.close()
    bloomline("artifacts", "gc")
    assert [path.is_dir() for path in left] == [False, False, True]
    bloomline("artifacts", "gc", "scratch")
    assert not scratch.exists()


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("conf/pipeline/small.yaml/store", "small.yaml is a file"),
        ("unknown://bucket", "The store at unknown://bucket: can't open it: Protocol not known"),
        ("s3://bucket/root", "The store at s3://bucket/root: can't read records/"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_clear_error(bloomline: Command, verb: str, root: str, said: str) -> None:
    if root.startswith("s3"):
        pytest.importorskip("s3fs")
    nowhere = ["++store.options.endpoint_url=http://127.0.0.1:1", "store.options.key=k", "store.options.secret=s"]
    nowhere.append("++store.options.config_kwargs.retries.max_attempts=0")
    code, out, err = bloomline(verb, f"store.root={root}", *(nowhere if root.startswith("s3") else []))
    assert code == 1
    assert said in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


def test_a_sweep_says_how_to_repeat_each_job_and_leaves_nothing_behind(
    bloomline: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    code, _, err = bloomline("run", "--multirun", "--config-dir", "conf", "steps.b.separator=x,y")
    assert code == 0, err
    commands = [run.command.split() for run in run_history.runs(Store(StoreConfig(root="store")))]
    assert len(commands) == 2
    assert all(
        "--config-dir=conf" in words and "hydra.searchpath=[file://conf]" in " ".join(words) for words in commands
    )
    assert {words[-1] for words in commands} == {"steps.b.separator=x", "steps.b.separator=y"}
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_flag_keeps_its_value(bloomline: Command) -> None:
    code, out, _ = bloomline("plan", "--cfg", "job", "-p", "steps.b")
    assert code == 0
    assert "stage: join" in out
