"""Which code the processes import: our own first, whatever the user's directories hold, then the users' packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from cluster.base import ClusterError
from cluster.config import InlineCluster
from cluster.factory import executor
from cluster.import_path import ROOT, check_packages, copy_modules, python_path
from pipelines import cli
from stages.packages import OWN_PACKAGES, package_files
from stages.secret_files import secret_files
from tests.cluster.user_project import OWN_MODULES, Project, create_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create_project(tmp_path)


def imported_files(project: Project, address: str) -> dict[str, dict[str, Path]]:
    """What each kind of process imports when the driver runs in the project's directory."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("import_driver.py")), str(ROOT), address]
    command += map(str, project.packages)
    environment = os.environ | {"PYTHONPATH": str(project.directory)}
    driver = subprocess.run(
        command, cwd=project.directory, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert driver.returncode == 0, driver.stderr
    printed = json.loads(driver.stdout.splitlines()[-1])
    assert printed["error"] == ""
    return {kind: {name: Path(file) for name, file in files.items()} for kind, files in printed["imported"].items()}


@pytest.mark.ray
@pytest.mark.slow
def test_processes_of_a_local_cluster_import_our_packages_and_the_users(project: Project) -> None:
    found = imported_files(project, "local")
    assert set(found) == {"step", "rank", "map worker", "replica"}
    for files in found.values():
        assert all(files[name].is_relative_to(ROOT) for name in OWN_MODULES)
        assert files["user_package.data.facts"].is_relative_to(project.packages[0])
        assert files["user_module"] == project.packages[1]


def test_our_root_comes_first_and_the_users_packages_last(project: Project) -> None:
    entries = python_path(project.packages).split(os.pathsep)
    assert entries[0] == str(ROOT)
    assert entries[-1] == str(project.packages[0].parent)


def test_all_packages_of_the_wheel_are_copied() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    only_here = {"hydra_plugins"}  # a sweep is started from the command, and runs on no other machine
    assert {name for name in wheel["packages"] if not name.endswith(".py")} - only_here == set(OWN_PACKAGES)
    assert cli.OWN_PACKAGES == OWN_PACKAGES  # imported before it may import ours


def test_a_package_that_can_be_imported_is_accepted(project: Project) -> None:
    check_packages(project.packages)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("stages", str(ROOT / "stages" / "__init__.py")),
        ("yaml", os.path.join("yaml", "__init__.py")),
        ("json", os.path.join("json", "__init__.py")),
        ("sys", "a built-in module"),
    ],
)
def test_a_package_whose_name_is_taken_is_refused_with_the_file_that_has_it(
    tmp_path: Path, name: str, first: str
) -> None:
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").touch()
    with pytest.raises(ClusterError) as refused:
        executor(InlineCluster(), [package])
    assert str(package) in str(refused.value)
    assert first in str(refused.value)


@pytest.mark.parametrize("name", ["absent", "empty", "absent.py", "no-identifier.py"])
def test_a_path_that_is_not_a_package_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-identifier.py").touch()
    with pytest.raises(ClusterError, match="is not a Python package"):
        check_packages([tmp_path / name])


def test_secrets_in_a_package_are_neither_copied_nor_part_of_its_identity(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    for name in ("__init__.py", "secrets.py", "data/words.txt", "tls.pem", "data/.env", "data/Key.PFX", "prod.env"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    kept = {"__init__.py", "secrets.py", "data/words.txt"}
    assert {str(path.relative_to(package)) for path in package_files(package)} == kept
    copy = copy_modules([package], tmp_path / "copies")[-1]
    assert {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()} == kept
    named = {str(path.relative_to(package)) for path in secret_files(package)}
    assert named == {"tls.pem", "data/.env", "data/Key.PFX", "prod.env"}


def test_what_a_package_of_the_user_imports_next_to_it_is_copied(tmp_path: Path) -> None:
    """But nothing that is installed, and nothing of ours."""
    for name, text in {
        "mine/__init__": "import neighbour, folder.part, yaml",
        "neighbour": "",
        "folder/part": "",
    }.items():
        path = tmp_path / "source" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "source" / "not_imported.py").touch()
    (tmp_path / "copies").mkdir()
    program = (
        "import sys; from pathlib import Path; sys.path.append(sys.argv[1]); import mine; "
        "from cluster.import_path import copy_modules; "
        "print(*(copy.name for copy in copy_modules([Path(sys.argv[1], 'mine')], Path(sys.argv[2]))))"
    )
    command = [sys.executable, "-P", "-c", program, str(tmp_path / "source"), str(tmp_path / "copies")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert set(ended.stdout.split()) == {*OWN_PACKAGES, "mine", "neighbour.py", "folder"}
    assert (tmp_path / "copies" / "folder" / "part.py").is_file()


def test_what_is_installed_for_another_python_is_not_copied(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "lib" / "python3" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "installed_elsewhere.py").touch()
    monkeypatch.syspath_prepend(installed)
    import_module("installed_elsewhere")
    copied = copy_modules(project.packages, tmp_path / "copies")
    assert "installed_elsewhere.py" not in {path.name for path in copied}
