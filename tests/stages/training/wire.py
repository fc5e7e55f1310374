"""The bytes that training sends, as the kernel counts them: a program to run in a separate network namespace.

Prints a line for each ZeRO stage: the stage, the bytes that the loopback device carried during two steps, and the
bytes that the ranks say they sent. gloo uses TCP alone, so nothing else is on that device.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
from pathlib import Path

from stages.base import Rank
from stages.parallel.process_group import process_group
from stages.training.recipe import Execution
from stages.training.task import TrainingSpec
from stages.training.zero import ShardedModel
from tests.stages.training.toy import RECIPE, Workers, spec

RANKS = 2
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP


def raise_loopback() -> None:
    """Bring the loopback device up, which is down in a new namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = fcntl.ioctl(handle, GET_FLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1]
        fcntl.ioctl(handle, SET_FLAGS, struct.pack("16sh14x", b"lo", flags | UP))


def carried_bytes() -> int:
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def measure(rank: Rank, spec: TrainingSpec) -> tuple[int, int]:
    """The bytes that the device carries in two steps, and the bytes that this rank reports as sent."""
    with process_group(rank, 60) as collectives:
        task = spec.build(spec.recipe)
        model = ShardedModel(task, spec.recipe, spec.execution, collectives)
        model.initialise(task.initial)
        collectives.broadcast_int(0)
        collectives.sent_bytes.clear()
        before = carried_bytes()
        for step in (1, 2):
            for turn in model.turns():
                with model.micro_batch(turn):
                    task.loss(task.model, range(2 * turn, 2 * turn + 2)).total.backward()
            model.reduce()
            model.update(1e-3, 1.0, step)
        collectives.broadcast_int(0)
        return carried_bytes() - before, collectives.sent_bytes.total()


def main() -> None:
    raise_loopback()
    recipe = RECIPE.model_copy(update={"global_batch_size": 8})
    workers = Workers(RANKS)
    try:
        for stage in range(4):
            execution = Execution(zero_stage=stage)
            answers = workers.gang(measure, spec(Path(), recipe, execution, width=256, blocks=2), ranks=RANKS)
            carried = max(result[0] for result, _ in answers)
            print(json.dumps([stage, carried, sum(result[1] for result, _ in answers)]), flush=True)
    finally:
        workers.close()


if __name__ == "__main__":
    main()
