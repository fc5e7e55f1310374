"""Sends what earlier runs left in their spools: here, or in a process that outlives the command.

A short run does not wait until mlflow is imported, and a run of many short steps not until MLflow has taken all of
them. What that process can't send stays, and the next run sends it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cluster.import_path import python_path
from pipelines.tracking.sender import Sender
from pipelines.tracking.spool import set_aside, waiting
from pipelines.tracking.tracking_config import TrackingConfig
from stages.child_environment import child_environment

PATIENCE_S = 1800.0  # of the process, which nobody waits for
RECENT_S = 60.0  # in the background: a spool that was written to since then may have a process that is about to send it
PROGRAM = "from pipelines.tracking import leftovers; leftovers.main()"


def flush(config: TrackingConfig, root: Path) -> tuple[str, ...]:
    """Send the entries of earlier runs. Returns notes about it."""
    if not any(root.glob("runs/*/spool/operations.jsonl")):
        return ()
    sender = Sender(config, root, None)
    sender.start()
    sender.stop()
    if sender.trouble:
        found = [f"The entries of earlier runs could not be sent to {config.shown(root)}: {sender.trouble}"]
    else:
        found = [sent(sender.recovered)] if sender.recovered else []
    return (*found, *sender.not_taken, *set_aside(root, config.target))


def sent(entries: int) -> str:
    """What is said of entries that were sent."""
    return f"Sent {entries} {'entry' if entries == 1 else 'entries'} of earlier runs to MLflow."


def resume(config: TrackingConfig, root: Path) -> tuple[str, ...]:
    """For a command that starts no run: have the older ones sent by a process. Returns notes about it."""
    runs = waiting(root, config.target, RECENT_S if config.in_background else 0.0)
    if not runs:
        return tuple(set_aside(root, config.target))
    waits = f"The tracking of {runs} earlier run{'s' if runs > 1 else ''} has not reached {config.shown(root)}"
    try:
        send_in_background(config, root)
    except OSError as error:
        return (f"{waits}: the next run sends it ({error.strerror}).", *set_aside(root, config.target))
    return (f"{waits}: it is being sent in the background.", *set_aside(root, config.target))


def send_in_background(config: TrackingConfig, root: Path) -> None:
    """Start a process that sends them. Raises OSError."""
    subprocess.Popen(
        [sys.executable, "-c", PROGRAM, config.model_dump_json(), str(root.absolute())],
        cwd="/",  # the command's directory may be removed
        env=child_environment({"PYTHONPATH": python_path(), "PYTHONSAFEPATH": "1"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # neither Ctrl-C nor a lost terminal reaches it
    )


def main() -> None:
    """The main function of the process."""
    config = TrackingConfig.model_validate_json(sys.argv[1])
    flush(config.model_copy(update={"close_timeout_s": PATIENCE_S}), Path(sys.argv[2]))
