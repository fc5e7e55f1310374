"""The thread that sends the spool to MLflow. Nothing else waits for MLflow.

It imports mlflow and connects when it starts, sends its own run first, then what earlier runs left behind, and closes
the runs of drivers that are gone. When MLflow can't be reached it tries again, ever more slowly; what could not be
sent stays on disk.

The thread shares its process with the run, of which it takes a small part of the processor time: a run of a thousand
short steps would otherwise wait for MLflow most of its time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.tracking.spool import Operation, Spool, leftovers
from pipelines.tracking.tracking_config import TrackingConfig

SHORT_RUN_S = 3.0  # a shorter run may leave the sending to another process
LONG_REST = 1000  # operations: a run that ends with more to send may leave these too
SHARE = 0.2  # of the processor time of one core, while the run continues
LINGER_S = 0.5  # so that points come in batches
HEARTBEAT_S = 60.0
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
SAID_AFTER = 2  # failures in a row: what passes at once need not be said
IN_TROUBLE_S = 3.0  # how long the end of a run waits for an MLflow that failed last time
ARTIFACT_TRIES = 3
ARTIFACT_WAIT_S = 1.0
BATCH_POINTS = 1000
ACKNOWLEDGE_S = 0.5


class Sender:
    """Sends one spool, and leftovers, until it is stopped."""

    def __init__(
        self,
        config: TrackingConfig,
        root: Path,
        spool: Spool | None,
        may_leave: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`may_leave`: if it is stopped within the first seconds, it may send nothing; if much is still to be sent, no
        more of it. `left` is then true.

        `say`: is called, from the sending thread, when trouble begins and when it is over.
        """
        self.left = False
        self.trouble: str | None = None  # why sending fails now, and what to do
        self.refused = 0
        self.recovered = 0  # operations of earlier runs that were sent
        self.abandoned = 0  # runs that were closed because their driver has ended
        self.not_taken: list[str] = []  # earlier runs that MLflow does not take from this user, and why, as sentences
        self._config = config
        self._root = root
        self._spool = spool
        self._say = say
        self._failures = 0  # in a row
        self._may_leave = may_leave
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._acknowledged = 0.0  # monotonic seconds
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    def stop(self) -> bool:
        """Send the rest and end. False if the thread still waits for a response.

        An MLflow that responds gets the whole timeout, one that failed last time only a few seconds.
        """
        timeout_s = min(self._config.close_timeout_s, IN_TROUBLE_S if self.trouble else self._config.close_timeout_s)
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.trouble = self.trouble or f"not everything was accepted within {timeout_s:g} s"
        return not self._thread.is_alive()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._may_leave and "mlflow" not in sys.modules and self._stopping.wait(SHORT_RUN_S):
            self.left = True
            return
        connection: Any = None
        backoff = FIRST_BACKOFF_S
        earlier_done = False
        beaten = 0.0
        writers: dict[Path, Any] = {}
        while True:
            stopping = self._stopping.is_set()
            self._wake.clear()
            try:
                if connection is None:
                    from pipelines.tracking.mlflow_connection import Connection

                    connection = Connection(self._config, self._root)
                if self._spool is not None:
                    self._send(self._spool, connection, writers)
                    if self.left:
                        return
                    if time.monotonic() - beaten > HEARTBEAT_S:
                        self._writer(self._spool, connection, writers).heartbeat()
                        beaten = time.monotonic()
                if not earlier_done:
                    self._send_earlier(connection)
                    earlier_done = True
            except Exception as error:
                self._failed(error)
                if self._stopping.is_set():
                    return
                self._stopping.wait(backoff)
                backoff = min(2 * backoff, LONGEST_BACKOFF_S)
                continue
            self._succeeded()
            backoff = FIRST_BACKOFF_S
            if stopping:  # set before this round looked at the spool: nothing was added since
                return
            self._wake.wait(HEARTBEAT_S)
            self._stopping.wait(LINGER_S)

    def _failed(self, error: Exception) -> None:
        self.trouble = self._in_words(error, self._spool)
        self._failures += 1
        if self._failures == SAID_AFTER:
            self._say(f"{self.trouble}. The run continues, and what MLflow has not received is kept in the store.")
        if self._spool is not None:
            self._spool.doubtful = True

    def _in_words(self, error: Exception, spool: Spool | None) -> str:
        from pipelines.tracking.mlflow_trouble import in_words

        return in_words(error, self._config, self._root, spool.ids.get("experiment_name") if spool else None)

    def _succeeded(self) -> None:
        if self._failures >= SAID_AFTER:
            self._say(f"MLflow at {self._config.shown(self._root)} works again, and has received what was kept.")
        self.trouble, self._failures = None, 0

    def _writer(self, spool: Spool, connection: Any, writers: dict[Path, Any]) -> Any:
        from pipelines.tracking.mlflow_store import Writer

        if spool.directory not in writers:
            writers[spool.directory] = Writer(connection, spool)
        return writers[spool.directory]

    def _send(self, spool: Spool, connection: Any, writers: dict[Path, Any]) -> int:
        from pipelines.tracking.mlflow_connection import RefusedError

        writer, count = self._writer(spool, connection, writers), 0
        arrived = spool.offset
        try:
            while unsent := spool.unsent():
                for operation, offset in _batched(unsent):
                    if self._leaves_rest(spool, arrived):
                        return count
                    used_s = time.thread_time()
                    try:
                        self._apply(writer, operation, connection)
                    except RefusedError as error:
                        if experiment := spool.ids.get("experiment"):
                            connection.expect_experiment(experiment)
                        self._refused(spool, operation, str(error))
                    arrived = offset
                    count += 1
                    if time.monotonic() - self._acknowledged > ACKNOWLEDGE_S:
                        self._acknowledge(spool, arrived)
                    self._stopping.wait((time.thread_time() - used_s) * (1 / SHARE - 1))
                self._acknowledge(spool, arrived)
        finally:
            self._acknowledge(spool, arrived)
        return count

    def _leaves_rest(self, spool: Spool, arrived: int) -> bool:
        """Whether the run has ended, and what is still to be sent of it is left to another process."""
        if self._may_leave and self._stopping.is_set() and spool is self._spool:
            self._may_leave = False  # this is decided once
            self._acknowledge(spool, arrived)
            self.left = spool.pending() > LONG_REST
        return self.left

    def _refused(self, spool: Spool, operation: Operation, reason: str) -> None:
        spool.refuse(operation, reason)
        if not self.refused:
            self._say(f"MLflow rejected an entry ({reason}). It is set aside in {spool.directory / 'refused.jsonl'}.")
        self.refused += 1

    def _acknowledge(self, spool: Spool, offset: int) -> None:
        """Not after each operation: what is sent again does no harm."""
        if offset > spool.offset:
            spool.acknowledge(offset)
        self._acknowledged = time.monotonic()

    def _apply(self, writer: Any, operation: Operation, connection: Any) -> None:
        """Execute an operation. An artifact is given up if its storage fails repeatedly while MLflow itself responds:
        a folder without permission must not block the curves that follow it."""
        from pipelines.tracking.mlflow_connection import RefusedError
        from pipelines.tracking.mlflow_trouble import first_line

        for tries in range(1, ARTIFACT_TRIES + 1):
            try:
                writer.apply(operation)
                return
            except RefusedError:
                raise
            except Exception as error:
                if operation.get("op") not in ("text", "file", "model") or not connection.answers():
                    raise
                if tries == ARTIFACT_TRIES:
                    raise RefusedError(first_line(error)) from error
                self._stopping.wait(ARTIFACT_WAIT_S)

    def _send_earlier(self, connection: Any) -> None:
        """Send what earlier runs left. One whose experiment is not ours to write to stays, and holds up no other."""
        from pipelines.tracking.mlflow_connection import DeletedExperimentError, denied

        for spool in leftovers(self._root, self._config.target):
            try:
                self.recovered += self._send(spool, connection, {})
            except Exception as error:
                if not (denied(error) or isinstance(error, DeletedExperimentError)):
                    raise
                run = spool.directory.parent.name
                self.not_taken.append(f"The tracking of the earlier run {run} waits: {self._in_words(error, spool)}.")
            finally:
                spool.close()
        self.abandoned += connection.close_abandoned()


def _batched(unsent: list[tuple[Operation, int]]) -> list[tuple[Operation, int]]:
    """Neighbouring values of one run as one operation."""
    merged: list[tuple[Operation, int]] = []
    for operation, offset in unsent:
        last = merged[-1][0] if merged else {}
        if _joins(last, operation):
            both = {name: {**last[name], **operation[name]} for name in ("params", "tags")}
            merged[-1] = ({**last, **both, "points": [*last["points"], *operation["points"]]}, offset)
        else:
            merged.append((operation, offset))
    return merged


def _joins(last: Operation, operation: Operation) -> bool:
    whole = {"key", "model", "points", "params", "tags"}
    if not (operation.get("op") == last.get("op") == "log" and whole <= operation.keys() & last.keys()):
        return False
    same = operation["key"] == last["key"] and operation["model"] == last["model"]
    return same and len(last["points"]) + len(operation["points"]) <= BATCH_POINTS
