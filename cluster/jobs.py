"""The same run as a Ray job: upload the code, start the driver on the cluster, follow it to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from cluster.base import ClusterError
from cluster.config import RemoteCluster
from cluster.import_path import check_packages, copy_modules
from cluster.network import expect_listener
from cluster.submitted_job import ENTRYPOINT_CPUS

DRIVER = ("python", "-P", "-m", "pipelines.cli", "run")  # -P: not from a folder `pipelines/` of the working directory
DASHBOARD_PORT = 8265
NOT_UPLOADED = [  # of the working directory; patterns as in .gitignore, which is respected too
    ".git",
    "/data",
    "/outputs",
    "/multirun",
    "/mlruns",
    ".venv",
    "venv",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
]
VERBOSE_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
POLL_S = 1.0
RECONNECTS = 5  # in a row, when the connection for the log breaks
STOPPED_CODE = 130


def submit(
    config: RemoteCluster,
    overrides: Sequence[str],
    *,
    packages: Sequence[Path] = (),
    directory: Path | None = None,
    driver: Sequence[str] = DRIVER,
    out: TextIO = sys.stdout,
    ask: Callable[[str], str] = input,
) -> int:
    """Run `overrides` as a job on the cluster whose dashboard is at `config.address`; the exit code of its driver.

    The job runs in a copy of `directory` (default: the working directory). It gets a copy of our own packages, which it
    imports first, and of `packages`: the directories of users' top-level packages, or single .py modules.

    After Ctrl-C the user is asked whether to stop the job. Returns 130 if it was stopped, 0 if it was left running.
    Raises ClusterError if the cluster can't be reached or rejects the token, or if a package can't be imported.
    """
    check_packages(packages)
    url = dashboard(config)
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.pop("RAY_ADDRESS", None)  # Ray's client would prefer it to the configured address
    try:
        client = JobSubmissionClient(url, headers=_authorization())
        job = client.submit_job(
            entrypoint=shlex.join([*driver, *in_job(overrides)]),
            submission_id=f"bloomline-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}",
            runtime_env={
                "working_dir": str(directory or Path.cwd()),
                "excludes": NOT_UPLOADED,
                "py_modules": [_upload(client, packages)],
            },
            metadata={"overrides": shlex.join(overrides), ENTRYPOINT_CPUS: str(config.entrypoint_cpus)},
            entrypoint_num_cpus=config.entrypoint_cpus,
        )
    except AuthenticationError as error:
        raise ClusterError(
            f"The Ray cluster at {url} rejected the token, or none was sent: {_first_line(error)} Set RAY_AUTH_TOKEN "
            "to the cluster's token, or write it to ~/.ray/auth_token (or to the file that RAY_AUTH_TOKEN_PATH names)."
        ) from error
    except (ConnectionError, RuntimeError, ValueError, requests.RequestException) as error:
        raise ClusterError(f"The Ray cluster at {url} did not accept the job: {_first_line(error)}") from error
    print(f"Submitted {job} to {url}", file=out, flush=True)
    return _follow(client, job, out, ask)


def _upload(client: JobSubmissionClient, packages: Sequence[Path]) -> str:
    """Upload our packages and the users', and return the URI of the directory that contains all of them.

    `submit_job` would unpack each package in a separate directory, where the driver does not find the configuration
    next to its code, and it would leave out those files of a package that match the excludes of the working directory.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy_modules(packages, Path(directory))
        return client._upload_package_if_needed(directory, include_gitignore=True)


def in_job(overrides: Sequence[str]) -> list[str]:
    """The overrides of a run, changed so that its job uses the cluster that it runs on."""
    ours = ("cluster=", "cluster.address=")
    return [
        *(override for override in overrides if not override.startswith(ours)),
        "cluster=remote",
        "cluster.address=auto",
    ]


def dashboard(config: RemoteCluster) -> str:
    """The address of the cluster's dashboard, which accepts jobs. Raises ClusterError if nothing answers there."""
    address = f"http://127.0.0.1:{DASHBOARD_PORT}" if config.address == "auto" else config.address
    parts = urlsplit(address)
    expected = f"the address of a Ray dashboard, http://HOST:{DASHBOARD_PORT}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"cluster.address={config.address} does not accept jobs. Expected {expected}.")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    expect_listener(config.address, parts.hostname, port, config.connect_timeout_s, expected)
    return address.rstrip("/")


def _authorization() -> dict[str, str]:
    """The header with the token, read from where Ray reads it. Ray's client sends it only if RAY_AUTH_MODE is set."""
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and path.is_file():
        token = path.read_text()
    return {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}


def _follow(client: JobSubmissionClient, job: str, out: TextIO, ask: Callable[[str], str]) -> int:
    shown = 0  # characters of the log
    failures = 0  # in a row
    pending_message: str | None = None
    while True:
        try:
            details = client.get_job_info(job)
            status = details.status
            if status == JobStatus.PENDING:
                if details.message != pending_message:
                    pending_message = details.message
                    print(pending_message, file=out, flush=True)
            else:
                shown = asyncio.run(_tail(client, job, out, shown))
                status = client.get_job_status(job)
            if status.is_terminal():
                return _end(client, job, out)
            failures = 0
            time.sleep(POLL_S)
        except KeyboardInterrupt:
            if _asked_to_leave(client, job, out, ask):
                return STOPPED_CODE if client.get_job_status(job) == JobStatus.STOPPED else 0
        except (ConnectionError, RuntimeError, OSError) as error:
            failures += 1
            if failures > RECONNECTS:
                raise ClusterError(
                    f"The connection to the cluster was lost while following {job}: {_first_line(error)} The job may "
                    "still be running."
                ) from error
            time.sleep(POLL_S)


async def _tail(client: JobSubmissionClient, job: str, out: TextIO, shown: int) -> int:
    """Print the log from character `shown` on until the job ends. Returns the number of characters shown so far."""
    seen = 0
    async for chunk in client.tail_job_logs(job):
        new = chunk[max(0, shown - seen) :]
        seen += len(chunk)
        if new:
            print(new, end="", file=out, flush=True)
    return max(seen, shown)


def _end(client: JobSubmissionClient, job: str, out: TextIO) -> int:
    details = client.get_job_info(job)
    if details.status == JobStatus.SUCCEEDED:
        return 0
    first = next(iter((details.message or "").splitlines()), details.status)  # the other lines repeat the log
    print(f"{job}: {first}", file=out, flush=True)
    if details.status == JobStatus.STOPPED:
        return STOPPED_CODE
    return details.driver_exit_code or 1


def _asked_to_leave(client: JobSubmissionClient, job: str, out: TextIO, ask: Callable[[str], str]) -> bool:
    """Ask what Ctrl-C meant. Returns False to continue following the job."""
    try:
        answer = ask(f"\n{job} is still running. [s]top it, [d]etach from it, or [c]ontinue following it? ")
    except (EOFError, KeyboardInterrupt):
        answer = "d"
    answer = answer.strip().lower()
    if answer.startswith("s"):
        client.stop_job(job)
        print("Stopping ...", file=out, flush=True)
        while not client.get_job_status(job).is_terminal():
            time.sleep(POLL_S)
        return True
    if answer.startswith("d"):
        print(f"Detached. Follow it: ray job logs -f {job}  Stop it: ray job stop {job}", file=out, flush=True)
        return True
    return False


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if line.endswith(".") else f"{line}."
