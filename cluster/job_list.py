"""The jobs that a cluster knows: their states, logs and end, by Ray's job API."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from ray.job_submission import JobSubmissionClient

from cluster.base import ClusterError
from cluster.config import RemoteCluster
from cluster.jobs import STOP_WAIT_S, attach, dashboard, job_client, rejections
from cluster.submitted_job import PIPELINE, SUBMITTED, USER
from cluster.terminal_text import clean, say
from stages.addresses import redact_url

REQUEST_TIMEOUT_S = 10.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Job:
    """A job as the cluster describes it. Times are in seconds since 1970; 0 for one that did not happen."""

    name: str
    state: str
    started: float
    ended: float
    metadata: Mapping[str, str]

    @property
    def user(self) -> str:
        return self.metadata.get(USER, "")

    @property
    def pipeline(self) -> str:
        return self.metadata.get(PIPELINE, "")

    @property
    def overrides(self) -> list[str]:
        """Those with which it was submitted, without the address of its cluster."""
        return shlex.split(self.metadata.get(SUBMITTED, ""))


def jobs(config: RemoteCluster) -> list[Job]:
    """The submitted jobs, the latest first. Raises ClusterError if the cluster can't be asked."""
    return sorted(_jobs(config, _client(config)), key=lambda job: -job.started)


def logs(config: RemoteCluster, name: str, *, follow: bool, out: TextIO = sys.stdout) -> int:
    """Print the log of a job: what there is now, or until the job ends. The exit code. Raises ClusterError."""
    if follow:
        return attach(config, name, out=out)
    client = _client(config)
    _find(config, client, name)
    with rejections(dashboard(config), "can't be asked for the log"):
        print(clean(client.get_job_logs(name)), end="", file=out, flush=True)
    return 0


def stop(config: RemoteCluster, name: str, *, out: TextIO = sys.stdout) -> int:
    """Ask the cluster to stop a job, and say what remains of it. Raises ClusterError."""
    client = _client(config)
    job = _find(config, client, name)
    if job.state in ENDED:
        say(f"{name} has ended already: {job.state.lower()}. Nothing was stopped.", file=out)
        return 0
    with rejections(dashboard(config), "can't be asked to stop the job"):
        client.stop_job(name)
    where = f"cluster=remote cluster.address={redact_url(config.address)}"
    say(
        f"Stopping {name}. Its steps have {STOP_WAIT_S} s to save what they have. "
        "What is finished stays in the store.\n"
        f"  bloomline jobs logs {name} --follow {where}    until it has ended\n"
        f"  bloomline jobs retry {name} {where}    continues it afterwards",
        file=out,
    )
    return 0


def to_retry(config: RemoteCluster, name: str) -> Job:
    """The job of that name. Raises ClusterError if it has not ended, or if another program submitted it."""
    job = _find(config, _client(config), name)
    if job.state not in ENDED:
        raise ClusterError(
            f"{name} is {job.state.lower()}. Only a job that has ended is submitted again: wait for its end, or end it "
            f"with `bloomline jobs stop {name}`."
        )
    if SUBMITTED not in job.metadata:
        raise ClusterError(f"{name} was not submitted by `bloomline submit`, so its command is not known.")
    return job


def _client(config: RemoteCluster) -> JobSubmissionClient:
    url = dashboard(config)
    with rejections(url, "can't be asked for its jobs"):
        return job_client(url)


def _jobs(config: RemoteCluster, client: JobSubmissionClient) -> list[Job]:
    with rejections(dashboard(config), "can't be asked for its jobs"):
        response = client._do_request("GET", "/api/jobs/", timeout=REQUEST_TIMEOUT_S)
        response.raise_for_status()
        found: list[dict[str, Any]] = response.json()
    return [
        Job(
            one["submission_id"],
            one["status"],
            (one.get("start_time") or 0) / 1000,
            (one.get("end_time") or 0) / 1000,
            one.get("metadata") or {},
        )
        for one in found
        if one.get("submission_id")
    ]


def _find(config: RemoteCluster, client: JobSubmissionClient, name: str) -> Job:
    known = _jobs(config, client)
    for job in known:
        if job.name == name:
            return job
    latest = max(known, key=lambda job: job.started, default=None)
    hint = f"The latest one is {latest.name}." if latest else "It knows none."
    raise ClusterError(f"The Ray cluster at {redact_url(config.address)} does not know a job {name!r}. {hint}")
