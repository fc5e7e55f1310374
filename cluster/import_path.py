"""Which code the processes that this project starts can import, and in which order.

The project's own packages come first, so that a folder `stages/` or a file `cluster.py` of a user can't hide them.
A process on this machine gets a PYTHONPATH. A process on another machine gets copies of the packages.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from cluster.base import ClusterError
from stages.base import OWN_PACKAGES, package_files

ROOT = Path(__file__).resolve().parents[1]


def python_path(packages: Sequence[Path] = ()) -> str:
    """PYTHONPATH for a process on this machine: our root, what this process has, then the users' packages."""
    return os.pathsep.join(dict.fromkeys(_entries(packages)))


def copy_modules(packages: Sequence[Path], directory: Path) -> list[Path]:
    """Copy what a process on a machine without an installation needs to `directory`; the copies, in order of search.

    Ray leaves out what a .gitignore in a package excludes, and a stage could then lack data that is part of its
    identity. The copies have no such files.
    """
    copies = []
    for package in [*(ROOT / name for name in OWN_PACKAGES), *(package.resolve() for package in packages)]:
        copies.append(directory / package.name)
        for file in package_files(package):
            copy = copies[-1] / file.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return copies


def check_packages(packages: Sequence[Path]) -> None:
    """Raise ClusterError if a user's package is not a package, or if another file with its name would be imported."""
    for package in packages:
        name = package.stem if package.suffix == ".py" else package.name
        source = package if package.suffix == ".py" else package / "__init__.py"
        if not source.is_file() or not name.isidentifier():
            raise ClusterError(
                f"packages: {package} is not a Python package. Expected a directory with an __init__.py, or a .py "
                "file, whose name can be imported."
            )
        found = _imported_file(name, packages)
        if found != source.resolve():
            raise ClusterError(
                f"packages: {package} can't be used, because `import {name}` finds {found or 'a built-in module'} "
                "first. Rename the package."
            )


def _entries(packages: Sequence[Path]) -> list[str]:
    inherited = [path or os.getcwd() for path in sys.path]
    return [str(ROOT), *inherited, *(str(package.resolve().parent) for package in packages)]


def _imported_file(name: str, packages: Sequence[Path]) -> Path | None:
    """The file that `import name` finds, None for a built-in module."""
    if name in sys.builtin_module_names:
        return None
    spec = PathFinder.find_spec(name, _entries(packages))
    return Path(spec.origin).resolve() if spec and spec.origin else None
