"""Modules that are next to foreign data and have the names of libraries. None of them may be imported."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path

from stages.packages import OWN_PACKAGES

MARK = """
import os
with open({marks!r}, "a") as marks:
    marks.write({name!r} + "\\n")
raise RuntimeError("a planted module was imported: " + {name!r})
"""


def plant(directory: Path, marks: Path) -> None:
    """Put a module with the name of every module of Python and of every installed package into `directory`.

    A user's project is searched last. It can still stand for modules that are not there (those of other systems), and
    for namespace packages, to which Python prefers any module. These are left out.

    A module writes its name to the file `marks` when it is imported.
    """
    names = {*sys.stdlib_module_names, *packages_distributions(), *OWN_PACKAGES, "sitecustomize", "usercustomize"}
    for name in names:
        if name.isidentifier() and _is_found_first(name):
            (directory / f"{name}.py").write_text(MARK.format(marks=str(marks), name=name))


def _is_found_first(name: str) -> bool:
    if name in sys.builtin_module_names:
        return True
    spec = PathFinder.find_spec(name)  # setuptools' finder would switch its distutils off when it is asked for pip
    if spec is None or spec.origin is None:  # a namespace package has no origin
        return False
    return "_vendor" not in Path(spec.origin).parts  # setuptools, once imported, has copies of libraries on the path


def imported(marks: Path) -> set[str]:
    """The planted modules that were imported."""
    return set(marks.read_text().split()) if marks.exists() else set()
