"""The dependencies that requirements.lock holds: `python -m tests.project.lock` prints them for `make lock`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

from packaging.requirements import Requirement

from tests.project.support import ROOT

LOCK = ROOT / "requirements.lock"
UNLOCKED = ("bloomline", "torch")  # torch: which build is right depends on the machine, see README.md
TOOLS = ("dev", "bench")  # extras for work on bloomline


def declared() -> Iterator[Requirement]:
    """What pyproject.toml asks for, in all extras of users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for group in (project["dependencies"], *(extras[name] for name in sorted(extras.keys() - set(TOOLS)))):
        yield from map(Requirement, group)


if __name__ == "__main__":
    print("\n".join(str(each) for each in declared() if each.name != "bloomline"))
