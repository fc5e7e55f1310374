"""Commands whose standard streams are closed, broken or full, and those without a user or a working directory."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import cli

REPOSITORY = Path(__file__).parents[2]
BLOOMLINE = f"{sys.executable} -m bloomline"
PLAN = "plan pipeline=debug cluster=inline"


def shell(tmp_path: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; `bloomline` stands for this interpreter's. Its `${PIPESTATUS[0]}` is the exit code."""
    environ = os.environ | {"BLOOMLINE_ROOT": str(tmp_path / "store"), "PYTHONPATH": str(REPOSITORY)} | environment
    line = command.replace("bloomline ", f"{BLOOMLINE} ") + "; exit ${PIPESTATUS[0]}"
    return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environ, capture_output=True, text=True)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-", "| true", "2>&1 | true"])
def test_a_plan_with_streams_that_are_closed(tmp_path: Path, closed: str) -> None:
    done = shell(tmp_path, f"bloomline {PLAN} {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(tmp_path, f"bloomline plan pipeline=nosuch {closed}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_output_that_is_lost_to_a_full_disk_is_an_error(tmp_path: Path) -> None:
    done = shell(tmp_path, f"bloomline {PLAN} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "Not all output could be written: No space left on device.\n"


def test_a_run_whose_reader_has_gone_is_done(tmp_path: Path) -> None:
    """In one process and on demo stages: the streams are those of the process."""
    code = (
        "import stages.registry; from tests.pipelines import demo; stages.registry.STAGES = demo.STAGES;"
        "from pipelines import cli; cli.main()"
    )
    conf = tmp_path / "conf" / "pipeline"
    conf.mkdir(parents=True)
    (conf / "small.yaml").write_text("# @package _global_\nname: small\nsteps: {a: {stage: make, text: hello}}\n")
    where = "hydra.searchpath=[file://conf] pipeline=small cluster=inline store.root=store"
    done = shell(tmp_path, f"{sys.executable} -c '{code}' run '{where.split()[0]}' {where.partition(' ')[2]} | true")
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "store" / "records").iterdir())


def test_what_the_encoding_of_the_output_does_not_have_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9").mkdir()
    for encoding in ("utf-8:strict", "ascii:strict"):
        done = shell(tmp_path, f"cd caf*; bloomline {PLAN} store.root=s", PYTHONIOENCODING=encoding)
        assert done.returncode in (0, 1)
        assert "Traceback" not in done.stderr


def test_a_working_directory_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.run(PLAN.split()) == 1
    assert capsys.readouterr().err == "The working directory was removed. Change to another one: cd DIR\n"


def test_a_user_whom_the_user_database_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("USER", raising=False)
    cli._expect_user()
    assert Path.home() == Path("/")
    assert os.environ["USER"] == str(os.getuid())
    monkeypatch.setenv("HOME", "/somewhere")
    cli._expect_user()
    assert os.environ["HOME"] == "/somewhere"
