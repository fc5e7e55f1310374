"""The run of a sweep in MLflow, under which the runs of its jobs hang."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pipelines.process_identity import this_process
from pipelines.tracking.operations import MAX_TAG, PARENT, SOURCE, closed, cut, file, key_of, log, milliseconds, tags
from pipelines.tracking.sender import Sender
from pipelines.tracking.spool import Operation, Spool
from pipelines.tracking.tracking_config import TrackingConfig


def started(sweep: str, name: str, experiment: str, command: str, user: str, commit: str | None) -> Operation:
    """The operation that makes the run of a sweep. Each job sends it as well, so that any can make it."""
    source = {"mlflow.source.name": SOURCE, "mlflow.source.type": "LOCAL", "mlflow.user": user}
    if commit:
        source["mlflow.source.git.commit"] = commit
    own = {
        "sweep_run": sweep,
        "sweep": sweep,
        "pipeline": experiment,
        "user": user,
        "commit": commit,
        "command": command,
    }
    own |= {"driver": json.dumps(this_process())}
    at = milliseconds(time.time())
    return {"op": "run", "key": PARENT, "name": name, "at": at, "tags": source | tags(own), "experiment": experiment}


class SweepTracking:
    """Sends what the run of a sweep shows: at its end, the table of its jobs and the best value of the objective."""

    def __init__(
        self, config: TrackingConfig, root: Path, sweep: str, operation: Operation, say: Callable[[str], None]
    ) -> None:
        """`say`: shows a sentence at once. Raises OSError if the spool of the sweep can't be written."""
        spool = Spool.open(root / "runs" / sweep / "spool", config.target)
        if spool is None:
            raise FileExistsError(f"sweep {sweep} is tracked by another process")
        self._spool = spool
        self._sender = Sender(config, root, spool, say=say)
        self._sender.start()
        self._put([operation])

    def finish(
        self,
        state: str,
        note: str,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        files: Sequence[Path],
    ) -> None:
        """Send the end of the sweep, and wait until MLflow has it, if it responds. Raises OSError for a full disk."""
        at = milliseconds(time.time())
        points = [(key_of(name), value, at, 0) for name, value in metrics.items()]
        described = {"mlflow.note.content": cut(note, MAX_TAG)} | tags({"state": state})
        params = {key_of(name): cut(value, 500) for name, value in parameters.items()}
        self._put([log(PARENT, points, params, described)])
        self._put([file(PARENT, self._spool.keep(path)) for path in files])
        self._put([closed(state, at)])
        if self._sender.stop():
            self._spool.close()

    def _put(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self._spool.append(operation)
        self._sender.wake()
