"""What the driver of a submitted job knows about its job, and about the machine that submitted it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the driver of a submitted job, with the job's metadata
PROJECT_VARIABLE = "BLOOMLINE_PROJECT"  # the user's directory in a submitted job, relative to the one of the job
FORWARDED = "bloomline-environment.json"  # in the directory of the job: the variables of `cluster.forward_env`
# Keys of the metadata, whose values are strings.
ENTRYPOINT_CPUS = "entrypoint_cpus"  # the CPUs that are reserved for the driver on its node
SUBMITTED = "submitted"  # the overrides of `submit`, for a shell, without the address of the cluster
ADDRESS, USER, PIPELINE, COMMIT, DIRTY = "address", "user", "pipeline", "git_commit", "git_dirty"
VERSIONS = "versions"  # JSON: what is installed on the machine that submitted the job
COMPARED = ("python", "ray", "torch")  # a job may fail, or give other results, where these differ


def in_submitted_job() -> bool:
    """Whether this process is the driver of a submitted job. The job's processes have copies of the code already."""
    return JOB_CONFIG in os.environ


def metadata() -> Mapping[str, str]:
    """The metadata that `submit` gave to this process's job; empty in a process that is not the driver of a job."""
    found: dict[str, str] = json.loads(os.environ.get(JOB_CONFIG, "{}")).get("metadata") or {}
    return found


def reserved_cpus() -> float:
    """The CPUs that are reserved for this process, which is 0 unless it is the driver of a submitted job."""
    return float(metadata().get(ENTRYPOINT_CPUS, 0))


def take_forwarded_environment() -> None:
    """Set the variables that `cluster.forward_env` named, in a process of a submitted job.

    They came in a file of the job's directory: Ray shows the `env_vars` of a job to everyone who sees its dashboard.
    """
    if PROJECT_VARIABLE not in os.environ:
        return
    for folder in (Path.cwd(), Path.cwd().parent):  # before and after the process entered the user's directory
        if (file := folder / FORWARDED).is_file():
            os.environ.update(json.loads(file.read_text())["variables"])


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the requirements of bloomline that are installed here, by name."""
    try:
        lines = requires("bloomline") or []
    except PackageNotFoundError:
        lines = ["ray"]
    names = sorted({_name(line) for line in lines if 'extra == "dev"' not in line} - {"bloomline"})
    found = {name: installed for name in names if (installed := _version(name))}
    return {"python": platform.python_version(), **found}


def lacking() -> str:
    """What this job's Python lacks of the one that submitted it, in one sentence; empty if nothing."""
    there: dict[str, str] = json.loads(metadata().get(VERSIONS, "{}"))
    here = {name: platform.python_version() if name == "python" else _version(name) for name in there}
    missing = [name for name in there if not here[name]]
    other = [
        f"{name} {here[name]} instead of {there[name]}"
        for name in COMPARED
        if here.get(name) and here[name] != there[name]
    ]
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    parts += [f"has {', '.join(other)}"] if other else []
    if not parts:
        return ""
    return f"Compared with the machine that submitted this job, the cluster's Python {' and '.join(parts)}."


def _name(requirement: str) -> str:
    """The name in a requirement such as `ray[default]<3,>=2.60; extra == "x"`."""
    end = next((place for place, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), None)
    return requirement[:end].lower()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
