"""A driver for tests that kill it or its head: starts Ray and a gang, prints their process ids, and waits.

With `adopted` the driver is a child of a process that adopts the driver's orphans. With `lose-first-start` it kills the
head of its first start, and says so in its first line. With `lose-head` it kills the head while a step is about to end,
and prints the outcome of that step and of the next one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import psutil
from ray._private.node import Node

from cluster.base import Executor
from cluster.config import LocalCluster
from cluster.factory import executor
from cluster.process_setup import adopt_orphans
from tests.cluster import work
from tests.cluster.support import SUPERVISOR, outcome, until


def main() -> None:
    if sys.argv[1:] == ["adopted"]:
        adopt_orphans()
        driver = subprocess.Popen([sys.executable, "-m", "tests.cluster.driver"], stdin=subprocess.PIPE)
        driver.wait()
        sys.stdin.read()
        return
    if sys.argv[1:] == ["lose-first-start"]:
        lose_first_start()
    with executor(LocalCluster(cpus=2, gpus=0)) as started:
        if sys.argv[1:] == ["lose-head"]:
            lose_head(started)
        else:
            started.start("step", partial(work.gang, work.hang, (), 2, 0), SUPERVISOR)
            messages = until(started, lambda messages: len(messages) == 2)
            print(os.getpid(), *(message.body["text"] for message in messages), flush=True)
            sys.stdin.read()
    os._exit(0)  # as the command line does: Ray's core crashes at the interpreter's exit if its head is lost


def lose_first_start() -> None:
    """Have the next start of Ray lose its head when all of its processes have been started."""
    start: Callable[[Node], None] = Node.start_ray_processes

    def start_and_lose(node: Node) -> None:
        patch.stop()
        start(node)
        kill_head()
        print("lost", flush=True)

    patch = mock.patch.object(Node, "start_ray_processes", start_and_lose)
    patch.start()


def kill_head() -> None:
    next(child for child in psutil.Process().children(True) if child.name() == "gcs_server").kill()


def lose_head(started: Executor) -> None:
    started.start("step", work.report_and_end_soon, SUPERVISOR)
    until(started, lambda messages: len(messages) == 1)
    kill_head()
    for _ in range(2):
        print(outcome(started)[0].state, flush=True)
        started.start("step", work.report_and_end_soon, SUPERVISOR)


if __name__ == "__main__":
    main()
