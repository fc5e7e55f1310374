"""A gang on Ray: one actor a rank, placed together, started together, and all ended when one is lost.

Runs in the process of a step. A lost rank (killed, out of memory, node gone) ends the gang, which is then started anew
as a whole; an exception that a rank raises ends it for good. Placement group and ranks never outlive the call.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.base import Gang, Message, Outcome, Send
from cluster.loss_cause import describe_loss
from cluster.outcome_capture import WorkError
from cluster.placement import bundle, describe, describe_nodes, fits, options
from cluster.rank_process import Ended, Place, RankProcess, Seat
from cluster.ray_nodes import free_resources, nodes
from stages.base import StageError, Stopped

POLL_S = 0.2  # how often the gang looks whether it was asked to stop
START_TIMEOUT_S = 120.0  # for the processes of placed ranks to answer: on a loaded machine they take seconds
ANSWER_TIMEOUT_S = 10.0  # for a live process to answer, whatever its function does
STOP_TIMEOUT_S = 15.0  # for the other ranks to end after one has stopped
GATHER_S = 0.5  # for the other ranks' errors to arrive after one has failed: which came first?
DEATH_TIMEOUT_S = 10.0
FEWER_TIMEOUT_S = 10.0  # for a smaller gang to be placed, once there was no room for the whole one
SAY_WAITING_S = 10.0  # after so long without room, say so: it may be that only a person can make some


@dataclass(frozen=True)
class GangSpec:
    """What a gang is to do, and where it may run."""

    step: str
    gang: Gang
    group_name: str  # unique: the driver finds a placement group by it that this process could not remove
    can_grow: bool  # whether nodes may join the cluster
    placement_timeout_s: float


class RankLostError(Exception):
    """A rank's process is gone."""


class PlacementError(StageError):
    """There was no room for a gang."""


def run_gang(spec: GangSpec, send: Send) -> list[Any]:
    """The results of the gang's `function(rank, *arguments)` on every rank, in rank order.

    Raises StageError if the gang can't be placed or was lost once more than `max_restarts`, and what a rank raised:
    Stopped and StageError as they are, anything else as WorkError.
    """
    max_restarts = spec.gang.max_restarts
    if spec.gang.ranks < 1 or spec.gang.rank.gpus % 1:
        asked = f"{spec.gang.ranks} ranks with {spec.gang.rank.gpus:g} GPUs each"
        raise StageError(f"The gang of {spec.step} asks {asked}; expected at least one rank, and whole GPUs.")
    restarts = 0
    while True:
        try:
            return _run_on_most(replace(spec, group_name=f"{spec.group_name}.{restarts}"), send)
        except RankLostError as lost:
            if send.stopping():
                raise Stopped from lost
            if restarts == max_restarts:
                after = f" after {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
                raise StageError(f"The gang of {spec.step} was lost{after}: {lost}.") from lost
            restarts += 1
            text = f"{lost}; the gang starts anew ({restarts} of {max_restarts})"
            send(Message(spec.step, "note", {"text": text}))


def _run_on_most(spec: GangSpec, send: Send) -> list[Any]:
    """Run on all ranks, or where they have no room in time on the most of the allowed numbers that do."""
    try:
        return _run_once(spec, send)
    except PlacementError as error:
        for count in sorted(spec.gang.fallback_sizes, reverse=True):
            text = f"there is no room for {spec.gang.ranks} ranks; goes on with {count} if there is for those"
            gang = replace(spec.gang, ranks=count, rank=spec.gang.fallback_sizes[count])
            if not fits(gang.rank, count, nodes()):
                continue
            timeout_s = min(spec.placement_timeout_s, FEWER_TIMEOUT_S)
            smaller = GangSpec(spec.step, gang, f"{spec.group_name}.{count}", False, timeout_s)
            send(Message(spec.step, "note", {"text": text}))
            try:
                return _run_once(smaller, send)
            except PlacementError:
                continue
        raise error


def _run_once(spec: GangSpec, send: Send) -> list[Any]:
    group = placement_group([bundle(spec.gang.rank)] * spec.gang.ranks, strategy="PACK", name=spec.group_name)
    ranks: list[Any] = []
    places: list[Place] = []
    try:
        _await_placement(spec, group, send)
        owner = ray.get_runtime_context().current_actor
        for index in range(spec.gang.ranks):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            rank = RankProcess.options(**options(spec.gang.rank), scheduling_strategy=strategy)  # type: ignore[attr-defined]
            ranks.append(rank.remote(spec.gang.rank, owner))
        places = _answers([rank.place.remote() for rank in ranks], START_TIMEOUT_S)
        same_node = len({place.node for place in places}) == 1
        rendezvous = _answers([ranks[0].rendezvous.remote(same_node)], START_TIMEOUT_S)[0]
        calls = [
            rank.run.remote(spec.step, seat, spec.gang.function, spec.gang.arguments)
            for rank, seat in zip(ranks, seats(places, rendezvous), strict=True)
        ]
        return _results(ranks, calls, send)
    finally:
        for rank in ranks:
            ray.kill(rank)
        _await_death(places)
        remove_placement_group(group)


def remove_groups(name: str) -> None:
    """Remove the placement groups of a step whose process was ended: unlike its ranks, they would outlive it."""
    for group in placement_group_table().values():
        if group["name"].startswith(f"{name}.") and group["state"] != "REMOVED":
            remove_placement_group(get_placement_group(group["name"]))


def seats(places: list[Place], rendezvous: str) -> list[Seat]:
    """Each rank's seat, given where the ranks are."""
    found = []
    for index, place in enumerate(places):
        neighbours = [other for other in range(len(places)) if places[other].node == place.node]
        gpus = tuple(dict.fromkeys(gpu for other in neighbours for gpu in places[other].gpus))
        local_index = neighbours.index(index)
        found.append(Seat(index, len(places), local_index, rendezvous, gpus, len(neighbours) == len(places)))
    return found


def _await_placement(spec: GangSpec, group: PlacementGroup, send: Send) -> None:
    possible = spec.can_grow or fits(spec.gang.rank, spec.gang.ranks, nodes())
    deadline = time.monotonic() + spec.placement_timeout_s
    say_at = time.monotonic() + SAY_WAITING_S
    while not group.wait(POLL_S):
        if send.stopping():
            raise Stopped
        if possible and time.monotonic() > say_at:
            say_at = float("inf")
            asked = f"{spec.gang.ranks} ranks with {describe(spec.gang.rank)} each"
            until = f"gives up after {spec.placement_timeout_s:g} s"
            text = f"waits for room for {asked}; free now: {describe(free_resources())}; {until}"
            send(Message(spec.step, "note", {"text": text}))
        if not possible or time.monotonic() > deadline:
            waited = f" within {spec.placement_timeout_s:g} s" if possible else ""
            raise PlacementError(
                f"The gang of {spec.step} could not be placed{waited}: it asks {spec.gang.ranks} ranks with "
                f"{describe(spec.gang.rank)} each, the cluster has {describe_nodes(nodes())}, of which "
                f"{describe(free_resources())} is free. Ask for fewer ranks, or less for each."
            )


def _results(ranks: list[Any], calls: list[ray.ObjectRef[Any]], send: Send) -> list[Any]:
    ended: dict[int, Ended] = {}
    told = False
    deadline = float("inf")
    pending = calls
    while pending and time.monotonic() < deadline:
        returned, pending = ray.wait(pending, timeout=POLL_S)
        for call in returned:
            ended[calls.index(call)] = _ended(call, calls.index(call), deadline < float("inf"))
        states = {end.outcome.state for end in ended.values()}
        if "stopped" in states:
            deadline = min(deadline, time.monotonic() + STOP_TIMEOUT_S)
        elif "failed" in states:
            _raise_first_failure(ranks, calls, ended)
        if send.stopping() and not told:
            told = True
            for rank in ranks:
                rank.stop.remote()
    if any(end.outcome.state == "stopped" for end in ended.values()):
        raise Stopped
    return [ended[index].outcome.result for index in range(len(calls))]


def _ended(call: ray.ObjectRef[Any], rank: int, stopping: bool) -> Ended:
    try:
        end: Ended = ray.get(call)
    except RayActorError as error:
        if stopping:
            return Ended(rank, Outcome("", "stopped"), time.time())
        raise RankLostError(f"rank {rank} was lost: {describe_loss(error)}") from error
    except RayError as error:  # the function, its arguments or its result can't pass between processes
        return Ended(rank, Outcome("", "failed", error=str(error).strip().splitlines()[-1], trace=str(error)), 0.0)
    return end


def _raise_first_failure(ranks: list[Any], calls: list[ray.ObjectRef[Any]], ended: dict[int, Ended]) -> None:
    """One rank's end makes the others fail too. A lost rank is the cause of all; else the first error is."""
    refused = [end for end in ended.values() if end.outcome.state == "failed" and not end.outcome.trace]
    if not refused:
        running = [index for index in range(len(ranks)) if index not in ended]
        noticed = next((f"; {end.outcome.error}" for end in ended.values() if end.outcome.state == "failed"), "")
        for index, answer in [(index, ranks[index].ping.remote()) for index in running]:
            try:
                ray.get(answer, timeout=ANSWER_TIMEOUT_S)
            except GetTimeoutError as error:
                raise RankLostError(f"rank {index} was lost: it does not answer{noticed}") from error
            except RayActorError as error:
                raise RankLostError(f"rank {index} was lost: {describe_loss(error)}{noticed}") from error
        others = [calls[index] for index in running]
        returned, _ = ray.wait(others, num_returns=len(others), timeout=GATHER_S) if others else ([], [])
        ended |= {calls.index(call): _ended(call, calls.index(call), False) for call in returned}
        refused = [end for end in ended.values() if end.outcome.state == "failed"]
    first = min(refused, key=lambda end: (bool(end.outcome.trace), end.at))
    if not first.outcome.trace:
        raise StageError(first.outcome.error)
    raise WorkError(f"rank {first.rank} of {len(ranks)}: {first.outcome.error}", first.outcome.trace)


def _answers(calls: list[ray.ObjectRef[Any]], timeout_s: float) -> list[Any]:
    """What the ranks answer. A rank that dies or stays silent is lost."""
    try:
        answers: list[Any] = ray.get(calls, timeout=timeout_s)
    except GetTimeoutError as error:
        raise RankLostError(f"a rank did not start within {timeout_s:g} s") from error
    except RayActorError as error:
        raise RankLostError(f"a rank was lost as it started: {describe_loss(error)}") from error
    return answers


def _await_death(places: list[Place]) -> None:
    """Return when the ranks' processes on this node are gone: the next gang must find the scratch to itself."""
    here = ray.get_runtime_context().get_node_id()
    deadline = time.monotonic() + DEATH_TIMEOUT_S
    while any(place.node == here and _lives(place.pid) for place in places) and time.monotonic() < deadline:
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
