"""Collects the results of a gang's ranks, or finds out why the gang failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError

from cluster.base import Message, Outcome, Send
from cluster.loss_cause import describe_loss
from cluster.outcome_capture import WorkError
from cluster.patience import ASK_AGAIN_S, SILENT, answer
from cluster.rank_process import RankOutcome
from stages.base import StageError, Stopped

POLL_S = 0.2  # how often the stop request is checked
ANSWER_TIMEOUT_S = 10.0  # for a live process to answer a ping, whatever its function does
STOP_TIMEOUT_S = 15.0  # for the other ranks to end after one has stopped
GATHER_S = 0.5  # for the other ranks' errors to arrive after one has failed, to find out which one failed first

Ask = Callable[[], "ray.ObjectRef[Any]"]  # calls a rank. It can be repeated, see `cluster/patience.py`


class RankLostError(Exception):
    """The process of a rank is gone or does not answer."""


def collect_results(step: str, ranks: list[Any], asks: Sequence[Ask], send: Send) -> list[Any]:
    """Run `asks`, one per rank, and return their results in rank order. Forwards a stop request to the ranks.

    Raises Stopped, RankLostError, or the failure of a rank: StageError as it is, anything else as WorkError.
    """
    ended: dict[int, RankOutcome] = {}
    silent: set[int] = set()  # ranks that were unavailable
    stop_sent = False
    deadline = float("inf")
    calls = [ask() for ask in asks]
    while len(ended) < len(calls) and time.monotonic() < deadline:
        returned, _ = ray.wait([call for index, call in enumerate(calls) if index not in ended], timeout=POLL_S)
        for call in returned:
            index = calls.index(call)
            try:
                ended[index] = _outcome(call, index, stopping=deadline < float("inf"))
            except ActorUnavailableError:
                if index not in silent:
                    send(Message(step, "note", {"text": f"rank {index} {SILENT}"}))
                silent.add(index)
                time.sleep(ASK_AGAIN_S)
                calls[index] = asks[index]()
                if stop_sent:
                    ranks[index].stop.remote()
        states = {end.outcome.state for end in ended.values()}
        if "stopped" in states:
            deadline = min(deadline, time.monotonic() + STOP_TIMEOUT_S)
        elif "failed" in states:
            _raise_cause(ranks, calls, ended)
        if send.stopping() and not stop_sent:
            stop_sent = True
            for rank in ranks:
                rank.stop.remote()
    if any(end.outcome.state == "stopped" for end in ended.values()):
        raise Stopped
    return [ended[index].outcome.result for index in range(len(calls))]


def answers(asks: Sequence[Ask], timeout_s: float) -> list[Any]:
    """The results of calls to starting ranks. Raises RankLostError if a rank dies or does not answer in time."""
    deadline = time.monotonic() + timeout_s
    try:
        return [answer(ask, deadline - time.monotonic()) for ask in asks]
    except GetTimeoutError as error:
        raise RankLostError(f"a rank did not start within {timeout_s:g} s") from error
    except RayActorError as error:
        raise RankLostError(f"a rank was lost while it started: {describe_loss(error)}") from error


def _outcome(call: ray.ObjectRef[Any], rank: int, stopping: bool) -> RankOutcome:
    try:
        end: RankOutcome = ray.get(call)
    except ActorUnavailableError:
        raise
    except RayActorError as error:
        if stopping:
            return RankOutcome(rank, Outcome("", "stopped"), time.time())
        raise RankLostError(f"rank {rank} was lost: {describe_loss(error)}") from error
    except RayError as error:  # the function, its arguments or its result can't be passed between processes
        last_line = str(error).strip().splitlines()[-1]
        return RankOutcome(rank, Outcome("", "failed", error=last_line, trace=str(error)), 0.0)
    return end


def _raise_cause(ranks: list[Any], calls: list[ray.ObjectRef[Any]], ended: dict[int, RankOutcome]) -> None:
    """Raise what made the gang fail. One rank's end makes the others fail too.

    A StageError is the cause. Otherwise a lost rank is, and if none was lost, the earliest failure.
    """
    failed = [end for end in ended.values() if end.outcome.state == "failed"]
    refusals = [end for end in failed if not end.outcome.trace]
    if not refusals:
        running = [index for index in range(len(ranks)) if index not in ended]
        _raise_if_lost(ranks, running, f"; {failed[0].outcome.error}")
        failed += _later_failures(calls, running)
    first = min(refusals or failed, key=lambda end: (bool(end.outcome.trace), end.at))
    if not first.outcome.trace:
        raise StageError(first.outcome.error)
    raise WorkError(f"rank {first.rank} of {len(ranks)}: {first.outcome.error}", first.outcome.trace)


def _raise_if_lost(ranks: list[Any], running: list[int], symptom: str) -> None:
    """Ping the ranks that have not ended. Raises RankLostError with `symptom`, another rank's error, for a lost one."""
    for index, pong in [(index, ranks[index].ping.remote()) for index in running]:
        try:
            ray.get(pong, timeout=ANSWER_TIMEOUT_S)
        except GetTimeoutError as error:
            raise RankLostError(f"rank {index} was lost: it does not answer{symptom}") from error
        except RayActorError as error:
            raise RankLostError(f"rank {index} was lost: {describe_loss(error)}{symptom}") from error


def _later_failures(calls: list[ray.ObjectRef[Any]], running: list[int]) -> list[RankOutcome]:
    """The failures of these ranks that arrive within a moment."""
    others = [calls[index] for index in running]
    returned, _ = ray.wait(others, num_returns=len(others), timeout=GATHER_S) if others else ([], [])
    ended = [_outcome(call, calls.index(call), stopping=False) for call in returned]
    return [end for end in ended if end.outcome.state == "failed"]
