"""A driver to be killed: starts Ray and a gang, prints the ids of the gang's processes, and waits."""

from __future__ import annotations

import os
import sys
from functools import partial

from cluster.config import LocalCluster, executor
from tests.cluster import work
from tests.cluster.support import SUPERVISOR, until


def main() -> None:
    with executor(LocalCluster(cpus=2, gpus=0)) as started:
        started.start("step", partial(work.gang, work.hang, (), 2, 0), SUPERVISOR)
        said = until(started, lambda messages: len(messages) == 2)
        print(os.getpid(), *(message.body["text"] for message in said), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
