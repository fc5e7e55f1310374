"""A parallel map over items on Ray: one task per item, a bounded number of tasks in flight, lost tasks repeated.

Runs in the process of a step, which owns the tasks: they end with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayError, WorkerCrashedError

from cluster import process_setup
from cluster.base import Items, Message, Outcome, Send
from cluster.loss_cause import describe_loss
from cluster.outcome_capture import WorkError, capture_outcome, reraise
from cluster.placement import capacity, describe, describe_nodes, options
from cluster.printed_output import claim, redirected
from cluster.ray_nodes import nodes
from stages.base import Resources, StageError, Stopped

POLL_S = 0.2  # how often the stop request is checked
LARGEST_QUEUE = 256  # tasks in flight if nodes may join the cluster: waiting tasks make it grow
LOST = (WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)


def map_in_parallel(
    step: str, work: Items, can_grow: bool, send: Send, output: Path | None = None
) -> Iterator[tuple[int, Any]]:
    """(Index of the item, result) of every item, in the order of completion. Closing the generator ends its tasks.

    `can_grow` says whether nodes may join the cluster. What the workers print is kept below `output`. Raises StageError
    if no node can hold a worker or if an item was lost more than `max_retries` times, Stopped, and what `function`
    raised: StageError as it is, anything else as WorkError.
    """
    limit = work.workers or _capacity(step, work, can_grow)
    waiting = list(reversed(range(len(work.items))))
    losses = [0] * len(work.items)
    running: dict[ray.ObjectRef[Any], int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                index = waiting.pop()
                running[_start(step, work, index, output)] = index
            if send.stopping():
                raise Stopped
            returned, _ = ray.wait(list(running), timeout=POLL_S)
            for call in returned:
                index = running.pop(call)
                outcome = _outcome(step, work, call, index)
                if outcome.state == "lost":
                    _note_loss(step, work, index, losses, outcome.error, send)
                    waiting.append(index)
                else:
                    reraise(outcome)
                    yield index, outcome.result
    finally:
        for call in running:
            ray.cancel(call, force=True)


@ray.remote(max_retries=0)
def _call(step: str, resources: Resources, function: Callable[[Any], Any], item: Any, output: Path | None) -> Outcome:
    process_setup.prepare(resources)
    return capture_outcome(step, _call_kept, output, function, item)


def _call_kept(output: Path | None, function: Callable[[Any], Any], item: Any) -> Any:
    with redirected(output and claim(output, "worker"), marks_restart=False):
        return function(item)


def _start(step: str, work: Items, index: int, output: Path | None) -> ray.ObjectRef[Any]:
    task = _call.options(**options(work.resources))
    reference: ray.ObjectRef[Any] = task.remote(step, work.resources, work.function, work.items[index], output)
    return reference


def _outcome(step: str, work: Items, call: ray.ObjectRef[Any], index: int) -> Outcome:
    try:
        outcome: Outcome = ray.get(call)
    except LOST as error:
        return Outcome(step, "lost", error=describe_loss(error))
    except RayError as error:  # the function, its item or its result can't be passed between processes
        return Outcome(step, "failed", error=str(error).strip().splitlines()[-1], trace=str(error))
    if outcome.state == "failed" and outcome.trace:
        raise WorkError(f"item {index + 1} of {len(work.items)}: {outcome.error}", outcome.trace)
    return outcome


def _note_loss(step: str, work: Items, index: int, losses: list[int], cause: str, send: Send) -> None:
    losses[index] += 1
    lost = f"item {index + 1} of {len(work.items)} of {step} was lost: {cause}"
    if losses[index] > work.max_retries:
        times = f" ({losses[index]} times)" if losses[index] > 1 else ""
        raise StageError(f"{lost[0].upper()}{lost[1:]}{times}.")
    text = f"{lost}; it is repeated ({losses[index]} of {work.max_retries})"
    send(Message(step, "note", {"text": text}))


def _capacity(step: str, work: Items, can_grow: bool) -> int:
    if can_grow:
        return LARGEST_QUEUE
    found = capacity(work.resources, len(work.items), nodes())
    if work.items and not found:
        raise StageError(
            f"A worker of {step} needs {describe(work.resources)}, which no node has: the cluster has "
            f"{describe_nodes(nodes())}. Ask for less, or use a larger cluster."
        )
    return found
