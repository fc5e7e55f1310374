"""The thread that sends the spool to MLflow. Nothing else waits for MLflow.

It imports mlflow and connects when it starts, sends its own run first, then what earlier runs left behind, and closes
the runs of drivers that are gone. When MLflow can't be reached it tries again, ever more slowly; what could not be
sent stays on disk.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from cluster.extras import missing_extra
from pipelines.tracking.database import DatabaseError
from pipelines.tracking.spool import Operation, Spool, leftovers
from pipelines.tracking.tracking_config import TrackingConfig

SHORT_RUN_S = 3.0  # a shorter run may leave the sending to another process
LINGER_S = 0.5  # so that points come in batches
HEARTBEAT_S = 60.0
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
IN_TROUBLE_S = 3.0  # how long the end of a run waits for an MLflow that failed last time
ARTIFACT_TRIES = 3
ARTIFACT_WAIT_S = 1.0
BATCH_POINTS = 1000
ACKNOWLEDGE_S = 0.5


class Sender:
    """Sends one spool, and leftovers, until it is stopped."""

    def __init__(self, config: TrackingConfig, root: Path, spool: Spool | None, may_leave: bool = False) -> None:
        """`may_leave`: if it is stopped within the first seconds, it may send nothing, and `left` is then true."""
        self.left = False
        self.trouble: str | None = None  # why sending fails now
        self.refused = 0
        self.recovered = 0  # operations of earlier runs that were sent
        self.abandoned = 0  # runs that were closed because their driver has ended
        self._config = config
        self._root = root
        self._spool = spool
        self._may_leave = may_leave and "mlflow" not in sys.modules
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
        if self._may_leave and self._stopping.wait(SHORT_RUN_S):
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
                    if time.monotonic() - beaten > HEARTBEAT_S:
                        self._writer(self._spool, connection, writers).heartbeat()
                        beaten = time.monotonic()
                if not earlier_done:
                    self._send_earlier(connection)
                    earlier_done = True
            except Exception as error:
                self.trouble = missing_extra(error) or _first_line(error)
                if self._spool is not None:
                    self._spool.doubtful = True
                if self._stopping.is_set():
                    return
                self._stopping.wait(backoff)
                backoff = min(2 * backoff, LONGEST_BACKOFF_S)
                continue
            self.trouble, backoff = None, FIRST_BACKOFF_S
            if stopping:  # set before this round looked at the spool: nothing was added since
                return
            self._wake.wait(HEARTBEAT_S)
            self._stopping.wait(LINGER_S)

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
                    try:
                        self._apply(writer, operation, connection)
                    except RefusedError as error:
                        self.refused += 1
                        spool.refuse(operation, str(error))
                    arrived = offset
                    count += 1
                    if time.monotonic() - self._acknowledged > ACKNOWLEDGE_S:
                        self._acknowledge(spool, arrived)
                self._acknowledge(spool, arrived)
        finally:
            self._acknowledge(spool, arrived)
        return count

    def _acknowledge(self, spool: Spool, offset: int) -> None:
        """Not after each operation: what is sent again does no harm."""
        if offset > spool.offset:
            spool.acknowledge(offset)
        self._acknowledged = time.monotonic()

    def _apply(self, writer: Any, operation: Operation, connection: Any) -> None:
        """Execute an operation. An artifact is given up if its storage fails repeatedly while MLflow itself responds:
        a folder without permission must not block the curves that follow it."""
        from pipelines.tracking.mlflow_connection import RefusedError

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
                    raise RefusedError(_first_line(error)) from error
                self._stopping.wait(ARTIFACT_WAIT_S)

    def _send_earlier(self, connection: Any) -> None:
        for spool in leftovers(self._root, self._config.target):
            try:
                self.recovered += self._send(spool, connection, {})
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


def _first_line(error: Exception) -> str:
    if isinstance(error, DatabaseError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines()]
    # SQLAlchemy says in parentheses where it was before it says what happened.
    text = next((line for line in lines if line and not line.startswith("(raised as a result of ")), "")
    return f"{type(error).__name__}: {text}"[:300]
