"""Calls to processes that do not answer for a while, because the network between two nodes is interrupted.

Ray tells two errors apart. ActorUnavailableError is temporary: the call may or may not have been executed. The other
RayActorErrors are final: the cluster has declared the process or its node dead. A method that is called again after the
first error must therefore return the same as before if it was executed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError

ASK_AGAIN_S = 0.5
SILENT = "does not answer; waiting until it does, or until the cluster declares it dead"


def answer(ask: Callable[[], ray.ObjectRef[Any]], timeout_s: float | None = None) -> Any:
    """The result of a call that can be repeated. Asks again as long as the process is temporarily unavailable.

    Raises GetTimeoutError after `timeout_s` (None: never), and what `ray.get` raises once the process is dead.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return ray.get(ask(), timeout=left)
        except ActorUnavailableError as error:
            if left == 0.0:
                raise GetTimeoutError(str(error)) from error
            time.sleep(ASK_AGAIN_S)
