"""Maps over items: in parallel on Ray with limits, losses and stops; one after another without Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.base import Executor
from cluster.config import InlineCluster
from cluster.factory import executor
from stages.base import Demand, Resources
from tests.cluster import work
from tests.cluster.support import gone, outcome, run

WAITING = Demand(task=Resources(cpus=0))


@pytest.fixture
def inline() -> Iterator[Executor]:
    with executor(InlineCluster()) as started:
        yield started


def mapped(function: Any, items: list[Any], workers: int = 0, retries: int = 0) -> partial[Any]:
    return partial(work.parallel_map, function, items, workers, retries)


def test_without_ray_items_are_processed_in_order(inline: Executor) -> None:
    ended, _ = run(inline, mapped(work.square, [3, 1, 2]))
    assert ended.result == [(0, 9), (1, 1), (2, 4)]
    refused, _ = run(inline, mapped(work.refuse_item, [1, 2]))
    assert (refused.state, refused.error) == ("failed", "item 2 is garbage")


def test_a_stopped_step_processes_no_further_item(inline: Executor) -> None:
    done = []

    def last(item: int) -> None:
        done.append(item)
        inline.stop("step")

    ended, _ = run(inline, mapped(last, [1, 2, 3]))
    assert (ended.state, done) == ("stopped", [1])


@pytest.mark.ray
class TestOnRay:
    def test_every_item_is_processed_once_with_any_number_of_workers(self, ray_session: Executor) -> None:
        for workers in (0, 1):
            ended, _ = run(ray_session, mapped(work.square, list(range(9)), workers), WAITING)
            assert sorted(ended.result) == [(index, index * index) for index in range(9)]
        assert run(ray_session, mapped(work.square, []), WAITING)[0].result == []

    def test_items_run_concurrently_in_different_processes(self, ray_session: Executor, tmp_path: Path) -> None:
        ended, _ = run(ray_session, mapped(work.wait_for_another, [f"{tmp_path}/{n}" for n in range(2)]), WAITING)
        pids = {pid for _, pid in ended.result}
        assert len(pids) == 2
        assert os.getpid() not in pids

    def test_at_most_the_given_number_of_tasks_is_in_flight(self, ray_session: Executor, tmp_path: Path) -> None:
        items = [f"{tmp_path}/{n}" for n in range(3)]
        one, _ = run(ray_session, mapped(work.count_in_flight, items, workers=1), WAITING)
        assert {count for _, count in one.result} == {1}
        all_, _ = run(ray_session, mapped(work.count_in_flight, items), WAITING)
        assert max(count for _, count in all_.result) <= 2  # the cluster's CPUs

    def test_a_lost_worker_is_replaced_and_only_its_item_is_repeated(
        self, ray_session: Executor, tmp_path: Path
    ) -> None:
        items = [f"{tmp_path}/{name}" for name in ("dies", "a", "b", "dies too")]
        ended, messages = run(ray_session, mapped(work.killed_at_first, items, retries=1), WAITING)
        assert sorted(ended.result) == [(0, 1), (1, 0), (2, 0), (3, 1)]
        notes = sorted(message.body["text"] for message in messages if message.kind == "note")
        assert len(notes) == 2
        assert notes[0].startswith("item 1 of 4 of step was lost: it was killed")
        assert notes[0].endswith("it is repeated (1 of 1)")

    def test_an_item_lost_too_often_fails_the_step(self, ray_session: Executor) -> None:
        ended, messages = run(ray_session, mapped(work.always_killed, [1], retries=1), WAITING)
        assert (ended.state, ended.trace) == ("failed", "")
        assert "Item 1 of 1 of step was lost" in ended.error
        assert "(2 times)" in ended.error
        assert len(messages) == 1

    def test_an_exception_ends_the_map_without_retry(self, ray_session: Executor) -> None:
        ended, messages = run(ray_session, mapped(work.refuse_item, [1, 3], retries=3), WAITING)
        assert (ended.state, messages) == ("failed", [])
        assert ended.error.startswith("item 2 of 2: ValueError: a fault (tests/cluster/work.py:")
        assert "in refuse_item" in ended.trace

    def test_tasks_in_flight_end_with_the_map(self, ray_session: Executor, tmp_path: Path) -> None:
        items = [f"{tmp_path}/{n}" for n in range(2)]
        for item in items:
            Path(item).touch()
        ended, _ = run(ray_session, partial(work.first_of, items), WAITING)
        assert ended.result == (0, items[0])
        assert gone([int(Path(items[1]).read_text())])

    def test_stop_ends_the_workers_at_once(self, ray_session: Executor, tmp_path: Path) -> None:
        item = tmp_path / "1"
        item.touch()
        ray_session.start("step", mapped(work.stay, [str(item)], workers=2), WAITING)
        end = time.monotonic() + 30
        while not item.read_text() and time.monotonic() < end:
            time.sleep(0.02)
        ray_session.stop("step")
        assert outcome(ray_session)[0].state == "stopped"
        assert gone([int(item.read_text())])

    def test_a_worker_that_no_node_has_is_refused_with_the_numbers(self, ray_session: Executor) -> None:
        ended, _ = run(ray_session, work.large_workers, WAITING)
        assert ended.state == "failed"
        assert "needs 3 CPUs, which no node has: the cluster has 1 node (2 CPUs" in ended.error
