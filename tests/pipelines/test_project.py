"""The user's project: what its pyproject.toml may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import cli, project, provenance
from pipelines.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[[", "a file in TOML"),
        ("tool = 1", "tool: 1; expected a table"),
        ("tool.bloomline = 1", "tool.bloomline: 1; expected a table"),
        ("project = 1\n[tool.bloomline]", "project: 1; expected a table"),
        ("project.entry-points = 1\n[tool.bloomline]", "project.entry-points: 1; expected a table"),
        (
            "project.entry-points.'bloomline.stages' = 1\n[tool.bloomline]",
            "project.entry-points.bloomline.stages: 1; expected a table",
        ),
        (
            "[tool.bloomline]\npackages = 'mine'",
            "tool.bloomline.packages: 'mine'; expected a list of top-level packages",
        ),
        ("[tool.bloomline]\nconfig = 'nowhere'", "tool.bloomline.config: 'nowhere'; expected a directory in "),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        project.find(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)


@pytest.mark.parametrize("value", ["mine", 3, True, [3], [None], ["os.path"]])
def test_packages_that_are_not_a_list_of_names_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError, match=r"^packages: .*; expected a list of top-level packages"):
        project.Project(tmp_path).use(value)


def test_no_value_stands_for_no_packages_and_the_program_itself_is_not_one(tmp_path: Path) -> None:
    project.Project(tmp_path).use(None)
    with pytest.raises(ConfigError, match=r"packages: '__main__' is the program itself"):
        project.Project(tmp_path).use(["__main__"])


@pytest.mark.parametrize("name", ["it's", 'a "quoted" one', 'back\\"slash', "a, b = [c]"])
def test_a_project_may_be_in_a_directory_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    conf = tmp_path / name / "conf" / "pipeline"
    conf.mkdir(parents=True)
    (conf / "own.yaml").write_text("# @package _global_\n# Mine.\nname: own\nsteps: {}\n")
    (tmp_path / name / "pyproject.toml").write_text("[tool.bloomline]\nconfig = 'conf'\npipeline = 'own'\n")
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cli.run(["plan"]) == 2
    assert "steps: no step" in capsys.readouterr().err
    assert cli.run(["pipelines"]) == 0
    assert "own" in capsys.readouterr().out.split("shipped")[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b": : bad: [", "conf/pipeline/broken.yaml:1:1: no key"),
        (b"name: \xff\xfe", "conf/pipeline/broken.yaml:1:7: the byte 0xff, which is not UTF-8"),
    ],
)
def test_a_configuration_that_is_not_yaml_is_refused_and_does_not_hide_the_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    said: str,
) -> None:
    (tmp_path / "conf" / "pipeline" / "folder.yaml").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "broken.yaml").write_bytes(content)
    (tmp_path / "pyproject.toml").write_text("[tool.bloomline]\nconfig = 'conf'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cli.run(["plan", "pipeline=broken"]) == 2
    assert said in capsys.readouterr().err
    assert cli.run(["pipelines"]) == 0
    assert "broken" in capsys.readouterr().out


def test_a_project_outside_of_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = provenance.collect("run", [], provenance.Variant("demo"))
    assert (made.git_commit, made.git_dirty) == (None, False)
