"""A user's project: a package, a single module, and files that are named as our own packages are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OWN_MODULES = ("cluster.base", "conf", "pipelines", "stages.base")

FACTS = f'''
"""Reports which files a process imports."""

import importlib
from importlib.resources import files

from fastapi import FastAPI


def imported(_=None):
    """The files of our modules and of the user's, and whether the shipped configuration can be read."""
    names = {(*OWN_MODULES, "user_package.data.facts", "user_module")!r}
    found = {{name: importlib.import_module(name).__file__ for name in names}}
    assert files("conf").joinpath("corpus", "quality").is_dir()
    assert files("user_package").joinpath("ignored.txt").is_file()
    return found


def application(_):
    app = FastAPI()
    app.get("/health")(lambda: None)
    app.get("/imported")(lambda: imported())
    return app
'''


@dataclass(frozen=True)
class Project:
    """`directory` is a working directory in which the names of our packages are taken."""

    directory: Path
    packages: tuple[Path, Path]


def create_project(directory: Path) -> Project:
    """A project in `directory`, whose package and module are in a directory next to it."""
    working, source = directory / "working", directory / "source"
    facts = source / "user_package" / "data"
    facts.mkdir(parents=True)
    (facts / "facts.py").write_text(FACTS)
    for package in (facts, facts.parent):
        (package / "__init__.py").touch()
    (source / "user_package" / ".gitignore").write_text("*.txt")
    (source / "user_package" / "ignored.txt").touch()
    (source / "user_module.py").touch()
    for name in ("conf", "pipelines", "stages"):
        (working / name).mkdir(parents=True)
        (working / name / "__init__.py").touch()
    (working / "cluster.py").write_text("raise RuntimeError('the wrong cluster')")
    return Project(working, (source / "user_package", source / "user_module.py"))
