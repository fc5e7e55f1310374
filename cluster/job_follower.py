"""Follows a job to its end: prints its log, survives interruptions of the network, and asks what Ctrl-C means."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from cluster.base import ClusterError
from cluster.terminal_text import clean, say

POLL_S = 1.0
REQUEST_TIMEOUT_S = 5.0
QUIET_S = 15.0  # after this long without a line of the log, the cluster is asked whether it is still there
STOPPED_CODE = 130
CONNECTION_LOST_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is known about the job's end
INTERRUPTIONS = (OSError, RuntimeError, aiohttp.ClientError)  # OSError includes the errors of requests


@dataclass
class Followed:
    """A job, and how much of its log was printed."""

    client: JobSubmissionClient
    job: str
    out: TextIO
    ask: Callable[[str], str]
    patience_s: float  # how long the cluster may be out of reach before the follower gives up
    address: str  # of the cluster, as it may be shown
    shown: int = 0  # characters of the log
    answered: float = field(default_factory=time.monotonic)
    interrupted: bool = False
    waiting_for: str = ""

    def follow(self) -> int:
        """The exit code of the job's driver: 130 if the job was stopped, 75 if the connection was lost for too long.

        After Ctrl-C the user is asked whether to stop the job; 0 if it is left running. Raises ClusterError if the
        cluster rejects the token or does not know the job.
        """
        while True:
            try:
                details = self._details()
                if details["status"] == JobStatus.PENDING:
                    self._say_waiting(details["message"] or "")
                else:
                    asyncio.run(self._tail())
                    details = self._details()
                if JobStatus(details["status"]).is_terminal():
                    return self._end(details)
                time.sleep(POLL_S)
            except KeyboardInterrupt:
                if self._leaves():
                    return 0
            except AuthenticationError as error:
                raise ClusterError(f"The cluster rejected the token while following {self.job}: {error}") from error
            except INTERRUPTIONS as error:
                if time.monotonic() - self.answered > self.patience_s:
                    self._say(
                        f"The connection to the cluster was lost for {self.patience_s:g} s while following {self.job}: "
                        f"{first_line(error)} The job may still be running. Follow it again: {self._command('attach')}"
                    )
                    return CONNECTION_LOST_CODE
                if not self.interrupted:
                    self._say(f"The connection was interrupted. Trying again for at most {self.patience_s:g} s.")
                self.interrupted = True
                time.sleep(POLL_S)

    def _details(self) -> dict[str, Any]:
        """What the cluster knows about the job. Raises one of INTERRUPTIONS, or ClusterError for an unknown job."""
        response = self.client._do_request("GET", f"/api/jobs/{self.job}", timeout=REQUEST_TIMEOUT_S)
        if response.status_code == 404:
            raise ClusterError(
                f"The cluster does not know a job {self.job!r}. A cluster forgets its jobs when its head is started "
                "again; `bloomline jobs list` lists those that it knows."
            )
        response.raise_for_status()
        self._heard()
        found: dict[str, Any] = response.json()
        return found

    async def _tail(self) -> None:
        """Print the log until the job ends. Ray sends it from its beginning: what was printed before is left out."""
        seen = 0
        chunks = self.client.tail_job_logs(self.job)
        while True:
            next_chunk = asyncio.ensure_future(anext(chunks, None))
            try:
                while not (await asyncio.wait({next_chunk}, timeout=QUIET_S))[0]:
                    details = await asyncio.to_thread(self._details)
                    if JobStatus(details["status"]).is_terminal() and not next_chunk.done():
                        return
            finally:
                next_chunk.cancel()
            chunk = next_chunk.result()
            if chunk is None:
                return
            self._heard()
            new = chunk[max(0, self.shown - seen) :]
            seen += len(chunk)
            self.shown = max(self.shown, seen)
            if new:
                print(clean(new), end="", file=self.out, flush=True)

    def _heard(self) -> None:
        self.answered = time.monotonic()
        if self.interrupted:
            self.interrupted = False
            self._say("The connection is back.")

    def _end(self, details: dict[str, Any]) -> int:
        if details["status"] == JobStatus.SUCCEEDED:
            return 0
        first = next(iter((details["message"] or "").splitlines()), details["status"])  # the others repeat the log
        self._say(f"{self.job}: {first.partition(', last available logs')[0]}")
        if details["status"] == JobStatus.STOPPED:
            return STOPPED_CODE
        code: int = details.get("driver_exit_code") or 1
        if code > 0:
            return code
        self._say(f"Its driver was killed by {signal.Signals(-code).name}. Continue it: {self._command('jobs retry')}")
        return 128 - code

    def _leaves(self) -> bool:
        """Ask what Ctrl-C meant. False: the job is followed further, also to its end after it was asked to stop."""
        try:
            answer = self.ask(
                f"\n{self.job} is still running. [s]top it, [d]etach from it, or [c]ontinue following it? "
            )
        except (EOFError, KeyboardInterrupt):
            answer = "d"
        answer = answer.strip().lower()
        if answer.startswith("d"):
            self._say(f"Detached. Follow it: {self._command('attach')}  Stop it: {self._command('jobs stop')}")
            return True
        if answer.startswith("s"):
            try:
                self.client._do_request("POST", f"/api/jobs/{self.job}/stop", timeout=REQUEST_TIMEOUT_S)
                self._say("Stopping ...")
            except INTERRUPTIONS as error:
                self._say(f"The cluster could not be asked to stop it: {first_line(error)}")
        return False

    def _command(self, verb: str) -> str:
        return f"bloomline {verb} {self.job} cluster=remote cluster.address={self.address}"

    def _say_waiting(self, message: str) -> None:
        if message != self.waiting_for:
            self.waiting_for = message
            self._say(message)

    def _say(self, text: str) -> None:
        say(text, file=self.out, flush=True)


def first_line(error: Exception) -> str:
    """The first line of an error's message, as a sentence."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if line.endswith(".") else f"{line}."
