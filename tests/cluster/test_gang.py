"""Gangs on Ray: placement, rendezvous, restarts, failures and stops."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from cluster.base import Executor
from tests.cluster import work
from tests.cluster.support import SUPERVISOR, gone, outcome, run, until

pytestmark = pytest.mark.ray


def gang(function: object, *arguments: object, ranks: int = 2, restarts: int = 0) -> partial[object]:
    return partial(work.gang, function, arguments, ranks, restarts)


def test_ranks_get_their_assignments(ray_session: Executor) -> None:
    ended, _ = run(ray_session, gang(work.assignment))
    first, second = ended.result
    assert [first["index"], second["index"]] == [0, 1]
    assert [first["local_index"], second["local_index"]] == [0, 1]
    assert first["size"] == second["size"] == 2
    assert first["rendezvous"] == second["rendezvous"]
    assert first["rendezvous"].startswith("tcp://127.0.0.1:")
    assert first["pid"] != second["pid"]
    assert (first["visible"], first["uses_gpu"], first["threads"]) == ("", False, "1")


def test_ranks_rendezvous_at_a_port_that_no_other_process_can_take(ray_session: Executor) -> None:
    ended, _ = run(ray_session, gang(work.rendezvous_at_a_bound_port))
    assert ended.result == [3.0, 3.0]


def test_every_message_of_every_rank_arrives_in_order(ray_session: Executor) -> None:
    ended, messages = run(ray_session, gang(work.report, 10_000))
    assert ended.state == "done"
    for rank in ("rank0", "rank1"):
        values = [message.body["values"] for message in messages if message.kind == "metrics"]
        assert [value[rank] for value in values if rank in value] == list(range(10_000))
    assert {message.body["text"] for message in messages if message.kind == "note"} == {"rank 0 ends", "rank 1 ends"}
    progress = [message for message in messages if message.kind == "progress"]
    assert 0 < len(progress) < 2_000  # outdated progress was dropped


def test_a_lost_rank_restarts_the_whole_gang_once(ray_session: Executor, tmp_path: Path) -> None:
    ended, messages = run(ray_session, gang(work.die_once, str(tmp_path), restarts=3))
    assert ended.result == [(0, 1), (1, 1)]
    notes = [message.body["text"] for message in messages if message.kind == "note"]
    assert len(notes) == 1
    assert "rank 1 was lost" in notes[0]
    assert "1 of 3" in notes[0]


def test_a_rank_that_hangs_is_reported_with_the_stalled_operation(ray_session: Executor) -> None:
    ended, _ = run(ray_session, gang(work.hang_in_collective))
    assert ended.state == "failed"
    assert "rank 1 was lost: it does not answer" in ended.error
    assert "rank 0 of 2: exchange of gradients failed or stalled" in ended.error


def test_a_rank_lost_too_often_fails_the_step(ray_session: Executor) -> None:
    ended, messages = run(ray_session, gang(work.die, ranks=1, restarts=1))
    assert (ended.state, ended.trace) == ("failed", "")
    assert "lost after 1 restart: rank 0 was lost" in ended.error
    assert len(messages) == 1


@pytest.mark.parametrize("refusal", [True, False])
def test_an_exception_ends_the_gang_without_restart(ray_session: Executor, refusal: bool) -> None:
    ended, messages = run(ray_session, gang(work.fail_on, 1, refusal, restarts=3))
    assert ended.state == "failed"
    assert messages == []
    if refusal:
        assert (ended.error, ended.trace) == ("a clear refusal", "")
    else:
        assert ended.error.startswith("rank 1 of 2: ValueError: a fault (tests/cluster/work.py:")
        assert "in fail_on" in ended.trace


def test_stop_reaches_every_rank(ray_session: Executor) -> None:
    ray_session.start("step", gang(work.stop_when_asked), SUPERVISOR)
    until(ray_session, lambda messages: len(messages) == 2)
    ray_session.stop("step")
    assert outcome(ray_session)[0].state == "stopped"


def test_kill_ends_the_ranks_and_frees_their_resources(ray_session: Executor) -> None:
    ray_session.start("step", gang(work.hang), SUPERVISOR)
    pids = [int(message.body["text"]) for message in until(ray_session, lambda messages: len(messages) == 2)]
    ray_session.kill("step")
    assert outcome(ray_session)[0].state == "stopped"
    assert gone(pids)
    assert len(run(ray_session, gang(work.assignment))[0].result) == 2


def test_a_gang_larger_than_the_cluster_is_refused_with_the_numbers(ray_session: Executor) -> None:
    ended, _ = run(ray_session, gang(work.assignment, ranks=3))
    assert (ended.state, ended.trace) == ("failed", "")
    assert "3 ranks with 1 CPU each" in ended.error
    assert "1 node (2 CPUs" in ended.error
    assert len(run(ray_session, gang(work.assignment))[0].result) == 2  # no placement group was left


def test_a_gang_that_does_not_fit_runs_with_the_largest_fallback_size_that_fits(ray_session: Executor) -> None:
    ended, messages = run(ray_session, partial(work.elastic_gang, work.assignment, (), 3, 1, 0))
    assert [one["size"] for one in ended.result] == [2, 2]
    assert [message.body["text"] for message in messages] == ["the cluster can't place 3 ranks now; trying with 2"]
    refused, _ = run(ray_session, partial(work.elastic_gang, work.assignment, (), 4, 3, 0))
    assert refused.state == "failed"
    assert "4 ranks with 1 CPU each" in refused.error
