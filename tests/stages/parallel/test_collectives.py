"""Failures of communication between ranks are reported, and ranks that do not answer do not hang the others."""

from __future__ import annotations

import re
import time

import torch

from stages.base import Rank
from stages.parallel.collectives import CollectiveError
from stages.parallel.process_group import process_group
from tests.stages.training.toy import Workers


def hang_on_rank_1(rank: Rank, timeout_s: float) -> None:
    with process_group(rank, timeout_s) as collectives:
        if rank.index == 0:
            collectives.all_gather(torch.zeros(128))
        else:
            time.sleep(1.5 * timeout_s)


def broadcast(rank: Rank) -> tuple[int, str]:
    with process_group(rank, 30) as collectives:
        return collectives.broadcast_int(rank.index + 7), collectives.broadcast_text(f"rank {rank.index}: é")


def test_a_stalled_collective_names_rank_and_operation() -> None:
    workers = Workers(2)
    try:
        [(error, _), *_] = workers.gang(hang_on_rank_1, 4.0, ranks=2)
    finally:
        workers.close()
    assert isinstance(error, CollectiveError)
    assert "rank 0 of 2: gather of parameters failed or stalled: rank 1 died, hangs" in str(error)


def test_every_rank_gets_the_values_of_rank_0() -> None:
    workers = Workers(3)
    try:
        answers = [result for result, _ in workers.gang(broadcast, ranks=3)]
    finally:
        workers.close()
    assert answers == [(7, "rank 0: é")] * 3


def wait_alone(rank: Rank, timeout_s: float) -> None:
    if rank.index == 0:
        with process_group(rank, timeout_s):
            pass


def test_ranks_that_do_not_meet_say_how_long_they_waited_and_where() -> None:
    workers = Workers(2)
    try:
        [(error, _), *_] = workers.gang(wait_alone, 2.0, ranks=2)
    finally:
        workers.close()
    assert isinstance(error, CollectiveError)
    waited = re.search(r"gave up after (\d+) s \(collective_timeout_s is 2\)", str(error))
    assert waited, str(error)
    assert int(waited[1]) >= 2
    assert "The rendezvous is " in str(error)
    assert "gloo uses the" in str(error)
