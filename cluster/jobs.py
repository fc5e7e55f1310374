"""The same run as a Ray job: upload the code, start the driver on the cluster, follow it to its end."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from cluster.base import ClusterError
from cluster.config import RemoteCluster
from cluster.head_token import SET_TOKEN
from cluster.import_path import check_packages, copy_modules
from cluster.job_follower import Followed, first_line
from cluster.network import expect_listener
from cluster.submitted_job import (
    ADDRESS,
    ENTRYPOINT_CPUS,
    FORWARDED,
    PROJECT_VARIABLE,
    SUBMITTED,
    VERSIONS,
    installed_versions,
)
from cluster.terminal_text import say
from cluster.upload import Upload, choose, expect_at_most
from stages.addresses import redact_url
from stages.secret_files import secret_files

DRIVER = ("python", "-P", "-m", "pipelines.cli", "run")  # -P: not from a folder `pipelines/` of the working directory
PROJECT = "bloomline-project"  # the folder of the user's directory in that of the job; not an identifier
DASHBOARD_PORT = 8265
VERBOSE_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
STOP_WAIT_S = 30  # between SIGTERM and SIGKILL after `ray job stop`; by default 3 s. A run gives its steps 20 s to save


def submit(
    config: RemoteCluster,
    overrides: Sequence[str],
    *,
    packages: Sequence[Path] = (),
    directory: Path | None = None,
    stores: Sequence[Path] = (),
    submitter: Mapping[str, str] | None = None,
    driver: Sequence[str] = DRIVER,
    out: TextIO = sys.stdout,
    ask: Callable[[str], str] = input,
) -> int:
    """Run `overrides` as a job on the cluster whose dashboard is at `config.address`; the exit code of its driver.

    The job runs in a copy of `directory` (default: the working directory) without what `cluster.upload` leaves out, to
    which `stores` belong, and does not import from it. It gets a copy of our own packages, which it imports first, and
    of `packages`: the directories of users' top-level packages, or single .py modules. `submitter` goes into the job's
    metadata: who submits which pipeline, from which commit.

    After Ctrl-C the user is asked whether to stop the job. Returns 130 if it was stopped, 0 if it was left running, and
    75 if the cluster was out of reach for `config.reconnect_timeout_s` while the job was followed. Raises ClusterError
    if the cluster can't be reached or rejects the token, if a package can't be imported, or if there is too much to
    send.
    """
    check_packages(packages)
    if "working_dir" in config.runtime_env:
        raise ClusterError(
            "cluster.runtime_env.working_dir is for runs that join a cluster: a submitted job runs in the copy of the "
            "project. Leave it out, and name what else has to be sent in cluster.include."
        )
    upload = choose(directory or Path.cwd(), stores, config.include)
    upload.expect_at_most(config.upload_limit_bytes)
    url = dashboard(config)
    say(upload.line(), file=out, flush=True)
    forwarded = forwarded_environment(config.forward_env)
    if config.forward_env:
        say(forwarding(config.forward_env, forwarded), file=out, flush=True)
    if secrets_inside := [str(file) for package in packages for file in secret_files(package)]:
        say(f"Left out of `packages`, as secrets: {', '.join(secrets_inside)}.", file=out, flush=True)
    with rejections(url, "did not accept the job"):
        client = job_client(url)
        modules = _send_modules(client, packages, config.upload_limit_bytes)
        job = client.submit_job(
            entrypoint=f"cd {PROJECT} && exec {shlex.join([*driver, *in_job(overrides)])}",
            submission_id=f"bloomline-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}",
            runtime_env={
                **config.runtime_env,
                "working_dir": _send_project(client, upload, forwarded),
                "py_modules": [modules, *config.runtime_env.get("py_modules", ())],
                "env_vars": {
                    **config.runtime_env.get("env_vars", {}),
                    "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
                    "PYTHONSAFEPATH": "1",
                    PROJECT_VARIABLE: PROJECT,
                },
            },
            metadata={
                **(submitter or {}),
                "overrides": shlex.join(in_job(overrides)),
                SUBMITTED: shlex.join(without_address(overrides)),
                ADDRESS: redact_url(config.address),
                VERSIONS: json.dumps(installed_versions()),
                ENTRYPOINT_CPUS: str(config.entrypoint_cpus),
            },
            entrypoint_num_cpus=config.entrypoint_cpus,
        )
    say(f"Submitted {job} to {redact_url(url)}", file=out, flush=True)
    return _followed(config, client, job, out, ask).follow()


def attach(config: RemoteCluster, job: str, *, out: TextIO = sys.stdout, ask: Callable[[str], str] = input) -> int:
    """Follow a job that was submitted before, from the beginning of its log; the exit code as of `submit`.

    Raises ClusterError if the cluster can't be reached, rejects the token, or does not know the job.
    """
    url = dashboard(config)
    with rejections(url, "can't be asked for its jobs"):
        client = job_client(url)
    return _followed(config, client, job, out, ask).follow()


def job_client(url: str) -> JobSubmissionClient:
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.pop("RAY_ADDRESS", None)  # Ray's client would prefer it to the configured address
    return JobSubmissionClient(url, headers=authorization())


def _followed(
    config: RemoteCluster, client: JobSubmissionClient, job: str, out: TextIO, ask: Callable[[str], str]
) -> Followed:
    return Followed(client, job, out, ask, config.reconnect_timeout_s, redact_url(config.address))


@contextmanager
def rejections(url: str, what: str) -> Iterator[None]:
    """Turn the errors of Ray's client into ClusterErrors, which say `what` the cluster did."""
    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"The Ray cluster at {redact_url(url)} rejected the token, or none was sent. {SET_TOKEN}"
        ) from error
    except (ConnectionError, RuntimeError, ValueError, requests.RequestException) as error:
        if "status code 413" in str(error):
            raise ClusterError(
                f"The Ray cluster at {redact_url(url)} {what}: its dashboard, or a proxy in front of it, takes no "
                "request of that size (status 413). Send less (`.gitignore` leaves files out), or raise its limit."
            ) from error
        # Ray's client says so of whatever answers on that port, and does not speak HTTP or is not a dashboard.
        is_other = "Failed to connect to Ray" in str(error) or "Jobs API is not supported" in str(error)
        expected = f" Expected the address of a Ray dashboard, http://HOST:{DASHBOARD_PORT}." if is_other else ""
        raise ClusterError(
            f"The Ray cluster at {redact_url(url)} {what}: {redact_url(first_line(error))}{expected}"
        ) from error


def _send_project(client: JobSubmissionClient, upload: Upload, forwarded: Mapping[str, str]) -> str:
    """Upload the user's directory, and return the URI of a directory that contains nothing else.

    Ray puts the directory of a job before everything else on the import path. If that were the user's own, a `json.py`
    in it would be imported in place of Python's. A folder whose name is not an identifier can't be imported.
    """
    with tempfile.TemporaryDirectory() as directory:
        upload.copy(Path(directory) / PROJECT)
        if forwarded:  # with a random part, because Ray shows a hash of what it is sent
            content = {"variables": forwarded, "random": secrets.token_hex(16)}
            (Path(directory) / FORWARDED).write_text(json.dumps(content))
        return client._upload_package_if_needed(directory, include_gitignore=False)


def _send_modules(client: JobSubmissionClient, packages: Sequence[Path], limit_bytes: int) -> str:
    """Upload our packages and the users', and return the URI of the directory that contains all of them.

    `submit_job` would unpack each package in a separate directory, where the driver does not find the configuration
    next to its code.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy_modules(packages, Path(directory))
        files = [path for path in Path(directory).rglob("*") if path.is_file()]
        copies = {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}
        advice = "Keep data out of the directories of `packages`, and put it where the nodes can read it"
        expect_at_most(limit_bytes, "What the stages import", copies, advice)
        return client._upload_package_if_needed(directory, include_gitignore=True)


def forwarded_environment(patterns: Sequence[str]) -> dict[str, str]:
    """The variables of this environment whose names match a pattern, such as AWS_*."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def forwarding(patterns: Sequence[str], forwarded: Collection[str]) -> str:
    """What is said of the variables that a job is given: their names, and the patterns that match none."""
    unset = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in forwarded)]
    lacking = f" Not set here: {', '.join(unset)}." if unset else ""
    return f"Forwarding environment variables: {', '.join(forwarded) or 'none'}.{lacking}"


def without_address(overrides: Sequence[str]) -> list[str]:
    """The overrides of a run without those that choose the cluster."""
    return [override for override in overrides if not override.startswith(("cluster=", "cluster.address="))]


def in_job(overrides: Sequence[str]) -> list[str]:
    """The overrides of a run, changed so that its job uses the cluster that it runs on.

    What only `submit` uses is left out: the job has it already, and its command can be read on the dashboard.
    """
    ours = ("cluster.runtime_env", "cluster.forward_env")
    return [
        *(override for override in without_address(overrides) if not override.lstrip("+").startswith(ours)),
        "cluster=remote",
        "cluster.address=auto",
    ]


def dashboard(config: RemoteCluster) -> str:
    """The address of the cluster's dashboard, which accepts jobs. Raises ClusterError if nothing answers there."""
    address = f"http://127.0.0.1:{DASHBOARD_PORT}" if config.address == "auto" else config.address
    parts = urlsplit(address)
    expected = f"the address of a Ray dashboard, http://HOST:{DASHBOARD_PORT}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"cluster.address={redact_url(config.address)} does not accept jobs. Expected {expected}.")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    expect_listener(config.address, parts.hostname, port, config.connect_timeout_s, expected)
    return address.rstrip("/")


def authorization() -> dict[str, str]:
    """The header with the token, read from where Ray reads it. Ray's client sends it only if RAY_AUTH_MODE is set."""
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and path.is_file():
        token = path.read_text()
    return {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}
