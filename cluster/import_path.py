"""Which code the processes that this project starts can import, and in which order.

The project's own packages come first, so that a folder `stages/` or a file `cluster.py` of a user can't hide them. The
working directory and that of the driver's script come after everything that is installed: a file `json.py` next to
foreign data must not be imported in place of the module that has its name. A process on this machine gets a PYTHONPATH.
A process on another machine gets copies of the packages.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from cluster.base import ClusterError
from stages.packages import OWN_PACKAGES, package_files

ROOT = Path(__file__).resolve().parents[1]
INSTALLATION_NAMES = {"site-packages", "dist-packages"}  # of directories to which packages are installed


def python_path(packages: Sequence[Path] = ()) -> str:
    """PYTHONPATH for a process on this machine: our root, what this process has, then the users' packages."""
    return os.pathsep.join(dict.fromkeys(_entries(packages)))


def copy_modules(packages: Sequence[Path], directory: Path) -> list[Path]:
    """Copy what a process on a machine without an installation needs to `directory`; the copies, in order of search.

    With the users' packages go the modules of theirs that this process has imported: a package may import a module
    next to it. Ray leaves out what a .gitignore in a package excludes, and a stage could then lack data that is part of
    its identity. The copies have no such files.
    """
    copies = []
    users = [package.resolve() for package in packages]
    users += [module for module in imported_modules() if module not in users] if users else []
    for package in [*(ROOT / name for name in OWN_PACKAGES), *users]:
        copies.append(directory / package.name)
        for file in package_files(package):
            copy = copies[-1] / file.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return copies


def imported_modules() -> list[Path]:
    """The top-level packages and modules that this process has imported from a directory of the user's.

    That is a directory of `sys.path` which belongs neither to this project nor to the Python installation: what is
    installed here is expected to be installed on the nodes.
    """
    libraries = [Path(path).resolve() for path in library_directories()]
    found = []
    for entry in dict.fromkeys(Path(path).resolve() for path in sys.path if path):
        installed = entry == ROOT or entry.name in INSTALLATION_NAMES  # a .pth file may add that of another Python
        if not installed and not any(entry.is_relative_to(library) for library in libraries):
            found += [path for name in sorted(sys.modules) if (path := _imported_from(entry, name)) is not None]
    return found


@cache
def library_directories() -> tuple[str, ...]:
    """The directories of Python's own modules and of installed packages."""
    own = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return tuple(dict.fromkeys([*own, *site.getsitepackages(), site.getusersitepackages()]))


def _imported_from(directory: Path, name: str) -> Path | None:
    """The directory or file of a top-level module if it was imported from `directory`."""
    module = sys.modules[name]
    if "." in name or name == "__main__" or name in OWN_PACKAGES:
        return None
    places = [Path(path).resolve() for path in getattr(module, "__path__", ())]
    places = places or [Path(file).resolve() for file in (getattr(module, "__file__", None),) if file]
    return next((place for place in places if place in (directory / name, directory / f"{name}.py")), None)


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
    script = getattr(sys.modules["__main__"], "__file__", None)
    late = {Path.cwd(), *([Path(script).resolve().parent] if script else [])} - {ROOT}
    inherited = [path or os.getcwd() for path in sys.path]
    last = [path for path in inherited if Path(path).resolve() in late]
    users = [str(package.resolve().parent) for package in packages]
    return [str(ROOT), *(path for path in inherited if path not in last), *last, *users]


def _imported_file(name: str, packages: Sequence[Path]) -> Path | None:
    """The file that `import name` finds, None for a built-in module."""
    if name in sys.builtin_module_names:
        return None
    spec = PathFinder.find_spec(name, _entries(packages))
    return Path(spec.origin).resolve() if spec and spec.origin else None
