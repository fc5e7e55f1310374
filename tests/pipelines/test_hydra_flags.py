"""Hydra's flags as the command line takes them: what is refused, in one line, before Hydra sees it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.errors import BloomlineError
from pipelines.hydra_flags import split

pytestmark = pytest.mark.usefixtures("demo_stages")


def test_flags_overrides_and_words_are_separated() -> None:
    given = ["-c", "job", "a=1", "-cd=nosuch", "word", "~b", "--package", "steps"]
    with pytest.raises(BloomlineError, match="no directory"):
        split(given)
    given.remove("-cd=nosuch")
    assert split(given) == (["--cfg=job", "--package=steps"], ["a=1", "~b"], ["word"])
    assert split(["--info", "a=1"]) == (["--info=all"], ["a=1"], [])
    assert split(["-i", "defaults", "-r"][:2]) == (["--info=defaults"], [], [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "debug"], "expected --cfg with it. A pipeline is chosen by pipeline=debug."),
        (["--resolve"], "expected --cfg job with it"),
        (["--cfg"], "--cfg: no value; expected one of job, hydra, all"),
        (["--cfg", "x"], "--cfg: 'x'; expected one of job, hydra, all"),
        (["-c", "x=1"], "--cfg: 'x=1'; expected one of"),
        (["--info=x"], "--info: 'x'; expected one of all, config"),
        (["--config-dir"], "--config-dir: no value; expected a directory"),
        (["-cd", "a", "-cd", "b"], "-cd is there twice; expected it once. Name more directories"),
        (["--multirun", "--cfg", "job"], "--multirun and --cfg do not go together"),
        (["--mutlirun"], "Unknown flag '--mutlirun'. Did you mean '--multirun'?"),
        (["--port", "80"], "Unknown flag '--port'. Valid: --cfg, "),
        (["--version"], "Unknown flag '--version'. Valid: --cfg, "),
        (["--follow"], "Unknown flag '--follow'. Valid: --cfg, "),
        (["--halp"], "Unknown flag '--halp'. Did you mean '--help'?"),
        (["--multirun=yes"], "Unknown flag '--multirun=yes'"),
        (["--config-d", "conf"], "Unknown flag '--config-d'. Did you mean '--config-dir'?"),
        (["--experimental-rerun", "x"], "Unknown flag '--experimental-rerun'"),
        (["-pdebug"], "Unknown flag '-pdebug'"),
        (["--"], "Unknown flag '--'"),
        (["--config-name", "nosuch"], "Cannot find primary config 'nosuch'"),
        (["--config-path", "/nosuch"], "Primary config directory not found"),
        (
            ["quickstart"],
            "'quickstart': not an override; expected KEY=VALUE, or ~KEY to remove a key. Did you mean",
        ),
        (["hydra.searchpath=conf"], "hydra.searchpath must be a list of strings"),
        (["--multirun", "steps.a.text=x,y", "steps.a.times=[1"], "'[1' is not a value in Hydra's grammar"),
    ],
)
def test_what_is_wrong_with_flags_is_one_line(
    words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["plan", *words]) in (1, 2)
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert len(err.splitlines()) <= 2
    assert re.search(r"Traceback|usage:", err) is None


SLIPS = {
    "tab": (b"steps:\n\ta: {stage: make}\n", ":4:1: a tab"),
    "no": (b"steps:\n  no: {stage: make}\n", ":4:3: the key no is read as false"),
    "latin1": (b"# caf\xe9\nsteps: {a: {stage: make}}\n", ":3:6: the byte 0xe9, which is not UTF-8"),
    "list": (b"steps:\n  - a: {stage: make}\n", "steps: a list; expected a mapping"),
    "defaults": (b"defaults: x\n", ":3:11: defaults that are not a list"),
    "loop": (b"defaults: [loop]\n", "files or values that name each other without end"),
    "header": (b"", ": Too many components"),
    "interpolation": (b"steps: {a: {stage: '${oc.env:'}}\n", ":3:20: '${oc.env:' is not an interpolation"),
    "package": (b"steps: {a: {stage: make}}\n", "has no line `# @package _global_`"),
}


@pytest.mark.parametrize("flags", ["--config-dir=conf", "hydra.searchpath=[file://conf]", ""])
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_a_file_is_one_line_wherever_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: str, slip: str
) -> None:
    """The last way of naming it is the project's own table."""
    content, said = SLIPS[slip]
    path = tmp_path / "conf" / "pipeline" / f"{slip}.yaml"
    path.parent.mkdir(parents=True)
    package = {"header": b"# @package _global_ x", "package": b"# @package global"}.get(slip, b"# @package _global_")
    path.write_bytes(package + b"\nname: slip\n" + content)
    if not flags:
        (tmp_path / "pyproject.toml").write_text("[tool.bloomline]\nconfig = 'conf'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cli.run(["plan", *filter(None, [flags]), f"pipeline={slip}", "cluster=inline"]) == 2
    err = capsys.readouterr().err
    assert (f"conf/pipeline/{slip}.yaml{said}" if said.startswith(":") else said) in err
    assert len(err.splitlines()) == 2
