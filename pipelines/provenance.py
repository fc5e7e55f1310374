"""The provenance of a run: its id, its command, the commit, and the versions of Python and the libraries."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster import submitted_job
from pipelines.redaction import shown_override
from pipelines.store.json_values import text

LIBRARIES = ("bloomline", "torch", "ray", "mlflow", "hydra-core", "tokenizers", "numpy")


@dataclass(frozen=True)
class Variant:
    """What tells a run from others of its pipeline: see pipelines.variant."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Who made the artifacts of a run, and from which code."""

    run_id: str
    command: str
    git_commit: str | None
    git_dirty: bool
    versions: Mapping[str, str]
    user: str = ""
    variant: Variant = Variant("")
    sweep: str | None = None  # the id of the sweep that the run is a job of
    places: tuple[str, ...] = ()  # the overrides that say where the store is


def collect(verb: str, overrides: Sequence[str], variant: Variant, sweep: str | None = None) -> Provenance:
    """The provenance of a run that begins now. Reads package metadata and asks git; imports no library.

    The commit is that of the working directory, which holds the user's project; outside of a checkout there is none. In
    a submitted job, user and commit are those of the machine that submitted it.
    """
    given = submitted_job.metadata()
    commit, dirty = git_state(Path.cwd())
    if submitted_job.USER in given:
        commit, dirty = given.get(submitted_job.COMMIT), submitted_job.DIRTY in given
    return Provenance(
        run_id=new_id(),
        command=command(verb, overrides),
        git_commit=commit,
        git_dirty=dirty,
        versions={"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        user=given.get(submitted_job.USER) or user(),
        variant=variant,
        sweep=sweep,
        places=tuple(places(overrides)),
    )


def new_id() -> str:
    """The id of a run or a sweep that begins now: the time, and four random digits."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def user() -> str:
    """Who runs this; in a container without a user database, the number."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def command(verb: str, overrides: Sequence[str]) -> str:
    """The command line that repeats the run, for a shell such as bash or zsh. Secrets in it are hidden.

    In a submitted job it is that of the machine that submitted the job, where it is read.
    """
    if address := submitted_job.metadata().get(submitted_job.ADDRESS):
        overrides = [one for one in overrides if not one.startswith(("cluster=", "cluster."))]
        if verb == "run":
            again = shlex.split(submitted_job.metadata()[submitted_job.SUBMITTED])
            own = [one for one in again if one.startswith("cluster.")]
            verb, overrides = "submit", [*overrides, *own, "cluster=remote", f"cluster.address={address}"]
    return text(f"{program()} {shlex.join([verb, *map(shown_override, overrides)])}")


def places(overrides: Sequence[str]) -> list[str]:
    """The overrides and flags that say where the store, MLflow and the configuration are."""
    found = ("store", "tracking", "hydra.searchpath", "--config-")
    return [override for override in overrides if override.lstrip("+").startswith(found)]


def submitter(pipeline: str) -> dict[str, str]:
    """Who submits a job of which pipeline, from which commit: what the provenance of its run is made from."""
    commit, dirty = git_state(Path.cwd())
    return {
        submitted_job.USER: user(),
        submitted_job.PIPELINE: pipeline,
        **({submitted_job.COMMIT: commit} if commit else {}),
        **({submitted_job.DIRTY: "yes"} if dirty else {}),
    }


def program() -> str:
    """The command `bloomline` as it can be called from here: its name if it is on the PATH, else its path."""
    called = Path(sys.argv[0])
    if shutil.which("bloomline") or called.name != "bloomline":
        return "bloomline"
    with contextlib.suppress(ValueError):
        return str(called.absolute().relative_to(Path.cwd()))
    return str(called)


def git_state(directory: Path) -> tuple[str | None, bool]:
    """The commit that is checked out, and whether tracked files differ from it; (None, False) outside a checkout."""
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        return commit, bool(_git(directory, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, False


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
