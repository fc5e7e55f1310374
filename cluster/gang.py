"""A gang on Ray: one actor per rank, placed together, started together, and ended together when one is lost.

Runs in the process of a step. A lost rank (killed, out of memory, node gone) ends the gang, which is then restarted as
a whole; an exception that a rank raises ends it for good. Placement group and ranks never outlive the call.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.base import Gang, Message, Send
from cluster.gang_results import POLL_S, RankLostError, answers, collect_results
from cluster.placement import bundle, describe, describe_nodes, fits, options
from cluster.rank_process import RankAssignment, RankLocation, RankProcess
from cluster.ray_nodes import free_resources, nodes
from stages.base import StageError, Stopped

START_TIMEOUT_S = 120.0  # for the processes of placed ranks to answer: on a loaded machine they take seconds
DEATH_TIMEOUT_S = 10.0
FALLBACK_TIMEOUT_S = 10.0  # for a smaller gang to be placed, after the full one was not
REPORT_WAITING_S = 10.0  # after this long without free resources the user is informed, who may be able to free some


@dataclass(frozen=True)
class GangSpec:
    """What a gang does, and where it may run."""

    step: str
    gang: Gang
    group_name: str  # unique: the driver finds a placement group by it if this process could not remove it
    can_grow: bool  # whether nodes may join the cluster
    placement_timeout_s: float
    output: Path | None = None  # what each rank prints is kept below it


class PlacementError(StageError):
    """There are not enough free resources for a gang."""


def run_gang(spec: GangSpec, send: Send) -> list[Any]:
    """The results of the gang's `function(rank, *arguments)` on every rank, in rank order.

    Raises StageError if the gang can't be placed, or if a rank was lost more than `max_restarts` times. Raises what a
    rank raised: Stopped and StageError as they are, anything else as WorkError.
    """
    gang = spec.gang
    if gang.ranks < 1 or gang.rank.gpus % 1:
        raise StageError(
            f"The gang of {spec.step} asks for {gang.ranks} ranks with {gang.rank.gpus:g} GPUs each. Expected at least "
            "one rank, and a whole number of GPUs."
        )
    restarts = 0
    while True:
        try:
            return _run_with_fallback(replace(spec, group_name=f"{spec.group_name}.{restarts}"), send)
        except RankLostError as lost:
            if send.stopping():
                raise Stopped from lost
            if restarts == gang.max_restarts:
                after = f" after {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
                raise StageError(f"The gang of {spec.step} was lost{after}: {lost}.") from lost
            restarts += 1
            text = f"{lost}; the gang is restarted ({restarts} of {gang.max_restarts})"
            send(Message(spec.step, "note", {"text": text}))


def remove_groups(name: str) -> None:
    """Remove the placement groups of a step whose process was ended. Unlike its ranks they would outlive it."""
    for group in placement_group_table().values():
        if group["name"].startswith(f"{name}.") and group["state"] != "REMOVED":
            remove_placement_group(get_placement_group(group["name"]))


def assign_ranks(locations: list[RankLocation], rendezvous: str) -> list[RankAssignment]:
    """Each rank's assignment, given where the ranks are."""
    assignments = []
    for index, location in enumerate(locations):
        neighbours = [other for other in range(len(locations)) if locations[other].node == location.node]
        gpus = tuple(dict.fromkeys(gpu for other in neighbours for gpu in locations[other].gpus))
        same_node = len(neighbours) == len(locations)
        local_index = neighbours.index(index)
        assignments.append(RankAssignment(index, len(locations), local_index, rendezvous, gpus, same_node))
    return assignments


def _run_with_fallback(spec: GangSpec, send: Send) -> list[Any]:
    """Run on all ranks. If they can't be placed in time, run on the largest of the fallback sizes that can be."""
    try:
        return _run_once(spec, send)
    except PlacementError as error:
        for count in sorted(spec.gang.fallback_sizes, reverse=True):
            gang = replace(spec.gang, ranks=count, rank=spec.gang.fallback_sizes[count])
            if not fits(gang.rank, count, nodes()):
                continue
            timeout_s = min(spec.placement_timeout_s, FALLBACK_TIMEOUT_S)
            smaller = GangSpec(spec.step, gang, f"{spec.group_name}.{count}", False, timeout_s, spec.output)
            text = f"the cluster can't place {spec.gang.ranks} ranks now; trying with {count}"
            send(Message(spec.step, "note", {"text": text}))
            try:
                return _run_once(smaller, send)
            except PlacementError:
                continue
        raise error


def _run_once(spec: GangSpec, send: Send) -> list[Any]:
    group = placement_group([bundle(spec.gang.rank)] * spec.gang.ranks, strategy="PACK", name=spec.group_name)
    ranks: list[Any] = []
    locations: list[RankLocation] = []
    try:
        _await_placement(spec, group, send)
        ranks.extend(_start_ranks(spec, group))
        locations = answers([rank.location.remote for rank in ranks], START_TIMEOUT_S)
        same_node = len({location.node for location in locations}) == 1
        rendezvous = answers([partial(ranks[0].rendezvous.remote, same_node)], START_TIMEOUT_S)[0]
        asks = [
            partial(rank.run.remote, spec.step, assignment, spec.gang.function, spec.gang.arguments, spec.output)
            for rank, assignment in zip(ranks, assign_ranks(locations, rendezvous), strict=True)
        ]
        return collect_results(spec.step, ranks, asks, send)
    finally:
        for rank in ranks:
            ray.kill(rank)
        _await_death(locations)
        remove_placement_group(group)


def _start_ranks(spec: GangSpec, group: PlacementGroup) -> list[Any]:
    owner = ray.get_runtime_context().current_actor
    ranks = []
    for index in range(spec.gang.ranks):
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        rank = RankProcess.options(**options(spec.gang.rank), scheduling_strategy=strategy)  # type: ignore[attr-defined]
        ranks.append(rank.remote(spec.gang.rank, owner))
    return ranks


def _await_placement(spec: GangSpec, group: PlacementGroup, send: Send) -> None:
    gang = spec.gang
    possible = spec.can_grow or fits(gang.rank, gang.ranks, nodes())
    deadline = time.monotonic() + spec.placement_timeout_s
    report_at = time.monotonic() + REPORT_WAITING_S
    while not group.wait(POLL_S):
        if send.stopping():
            raise Stopped
        if not possible or time.monotonic() > deadline:
            waited = f" within {spec.placement_timeout_s:g} s" if possible else ""
            raise PlacementError(
                f"The gang of {spec.step} could not be placed{waited}: it asks for {gang.ranks} ranks with "
                f"{describe(gang.rank)} each. The cluster has {describe_nodes(nodes())}, of which "
                f"{describe(free_resources())} is free. Ask for fewer ranks, or for less per rank."
            )
        if time.monotonic() > report_at:
            report_at = float("inf")
            text = (
                f"waiting for resources for {gang.ranks} ranks with {describe(gang.rank)} each, for at most "
                f"{spec.placement_timeout_s:g} s; free now: {describe(free_resources())}"
            )
            send(Message(spec.step, "note", {"text": text}))


def _await_death(locations: list[RankLocation]) -> None:
    """Return when the ranks' processes on this node have ended: the next gang uses the same scratch directory."""
    here = ray.get_runtime_context().get_node_id()
    pids = [location.pid for location in locations if location.node == here]
    deadline = time.monotonic() + DEATH_TIMEOUT_S
    while any(map(_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
