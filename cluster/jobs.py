"""The same run as a Ray job: upload the working tree, start the driver on the cluster, follow it to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import sys
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
from cluster.connection import ENTRYPOINT_CPUS
from cluster.reach import probe

DRIVER = ("python", "-m", "pipelines.cli", "run")
DASHBOARD_PORT = 8265
NOT_UPLOADED = [  # in the form of .gitignore, which is honoured too
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
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
POLL_S = 1.0
RECONNECTS = 5  # in a row, when the log's connection breaks
STOPPED_CODE = 130


def submit(
    config: RemoteCluster,
    overrides: Sequence[str],
    *,
    tree: Path | None = None,
    driver: Sequence[str] = DRIVER,
    out: TextIO = sys.stdout,
    ask: Callable[[str], str] = input,
) -> int:
    """Run `overrides` as a job on the cluster whose dashboard is at `config.address`; the exit code of its driver.

    `tree` (the working directory if not given) is what is uploaded. After Ctrl-C it asks whether to stop the job, and
    returns 130 if it was stopped, 0 if it was left running. Raises ClusterError if the cluster can't be reached or
    refuses the token.
    """
    url = dashboard(config)
    tree = tree or Path.cwd()
    if driver == DRIVER and not (tree / "pipelines" / "cli.py").is_file():
        raise ClusterError(f"{tree} is not bloomline's working tree: submit from its root, where pipelines/ is.")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.pop("RAY_ADDRESS", None)  # Ray's client would prefer it to what the config says
    try:
        client = JobSubmissionClient(url, headers=_authorization())
        job = client.submit_job(
            entrypoint=shlex.join([*driver, *in_job(overrides)]),
            submission_id=f"bloomline-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}",
            runtime_env={"working_dir": str(tree), "excludes": NOT_UPLOADED},
            metadata={"overrides": shlex.join(overrides), ENTRYPOINT_CPUS: str(config.entrypoint_cpus)},
            entrypoint_num_cpus=config.entrypoint_cpus,
        )
    except AuthenticationError as error:
        raise ClusterError(
            f"The Ray cluster at {url} refused the token, or there was none: {_first_line(error)} Put the cluster's "
            "token into RAY_AUTH_TOKEN, or into ~/.ray/auth_token (or the file that RAY_AUTH_TOKEN_PATH names)."
        ) from error
    except (ConnectionError, RuntimeError, ValueError, requests.RequestException) as error:
        raise ClusterError(f"The Ray cluster at {url} did not take the job: {_first_line(error)}") from error
    print(f"Submitted {job} to {url}", file=out, flush=True)
    return _follow(client, job, out, ask)


def in_job(overrides: Sequence[str]) -> list[str]:
    """The overrides of a run as its job needs them: on the cluster that the job is in."""
    ours = ("cluster=", "cluster.address=")
    return [
        *(override for override in overrides if not override.startswith(ours)),
        "cluster=remote",
        "cluster.address=auto",
    ]


def dashboard(config: RemoteCluster) -> str:
    """The address of the cluster's dashboard, where jobs are taken. Raises ClusterError unless something answers."""
    address = f"http://127.0.0.1:{DASHBOARD_PORT}" if config.address == "auto" else config.address
    parts = urlsplit(address)
    expected = f"the address of a Ray dashboard, http://HOST:{DASHBOARD_PORT}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"cluster.address={config.address} takes no jobs. Expected {expected}.")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    probe(config.address, parts.hostname, port, config.connect_timeout_s, expected)
    return address.rstrip("/")


def _authorization() -> dict[str, str]:
    """The header with the token, where Ray looks for it. Ray's client sends it only if RAY_AUTH_MODE says so."""
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and path.is_file():
        token = path.read_text()
    return {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}


def _follow(client: JobSubmissionClient, job: str, out: TextIO, ask: Callable[[str], str]) -> int:
    shown = 0  # characters of the log
    broken = 0
    waits_for: str | None = None
    while True:
        try:
            details = client.get_job_info(job)
            status = details.status
            if status == JobStatus.PENDING:
                if details.message != waits_for:
                    waits_for = details.message
                    print(waits_for, file=out, flush=True)
            else:
                shown = asyncio.run(_tail(client, job, out, shown))
                status = client.get_job_status(job)
            if status.is_terminal():
                return _end(client, job, out)
            broken = 0
            time.sleep(POLL_S)
        except KeyboardInterrupt:
            if _asked_to_leave(client, job, out, ask):
                return STOPPED_CODE if client.get_job_status(job) == JobStatus.STOPPED else 0
        except (ConnectionError, RuntimeError, OSError) as error:
            broken += 1
            if broken > RECONNECTS:
                raise ClusterError(
                    f"Lost the cluster while following {job}: {_first_line(error)} The job may still be running."
                ) from error
            time.sleep(POLL_S)


async def _tail(client: JobSubmissionClient, job: str, out: TextIO, shown: int) -> int:
    """Print the log from character `shown` on until the job ends; how many characters are shown then."""
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
    first = next(iter((details.message or "").splitlines()), details.status)  # the rest repeats the log
    print(f"{job}: {first}", file=out, flush=True)
    if details.status == JobStatus.STOPPED:
        return STOPPED_CODE
    return details.driver_exit_code or 1


def _asked_to_leave(client: JobSubmissionClient, job: str, out: TextIO, ask: Callable[[str], str]) -> bool:
    """Ask what Ctrl-C meant. False: go on following."""
    try:
        answer = ask(f"\n{job} runs on. [s]top it, [d]etach and leave it running, or go on following? ").strip().lower()
    except (EOFError, KeyboardInterrupt):
        answer = "d"
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
