"""What ranks say to each other: exact sums of shards, gathers, and small agreements, with every byte counted.

gloo's own reduce-scatter is an all-reduce underneath (twice the traffic, a full-size copy), and the order in which
NCCL adds depends on the number of ranks. So gradients are exchanged (sent directly; on NCCL by one all-to-all) and
each owner adds what it received itself, in an order that training defines (`stages/training/tree.py`).
ReduceOp.AVG is never used.
A stalled or broken collective ends with a CollectiveError that names the rank and the operation.
"""

from __future__ import annotations

import datetime
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch import Tensor

from stages.base import Rank

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Tags tell direct sends apart that are on their way at the same time: each kind has an order of its own.
EXCHANGE, GATHER = 1, {"parameters": 2, "gradients": 3}


Pending = tuple[int | None, dist.Work | None]  # the other rank, where it is one, and what is waited for


class CollectiveError(RuntimeError):
    """Ranks could not talk to each other. No StageError: when a rank was lost, its gang starts anew."""


class Collectives:
    """The ranks of one gang. With one rank nothing is sent and torch.distributed is not needed.

    `sent_bytes` counts the payload that this rank sent to others, by purpose: gradients, parameters, state, control.
    `seconds` is the time that this rank spent in calls, waiting for slower ranks included; what goes on in the
    background is not in it.
    """

    def __init__(self, rank: int = 0, ranks: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.ranks = ranks
        self.device = device or torch.device("cpu")
        self.sent_bytes: Counter[str] = Counter()
        self.seconds = 0.0

    @contextmanager
    def _named(self, operation: str, other: int | None = None) -> Iterator[None]:
        """Tells what fails inside, and which rank this one was waiting for, where it is one."""
        began = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            who = "another rank" if other is None else f"rank {other}"
            raise CollectiveError(
                f"rank {self.rank} of {self.ranks}: {operation} failed or stalled: {who} died, hangs, waits for one "
                f"that does, or cannot be reached ({reason}). Run again to go on from the last checkpoint; if ranks "
                "are only slow, raise collective_timeout_s"
            ) from error
        finally:
            self.seconds += time.perf_counter() - began

    def _await(self, work: Iterable[Pending], operation: str) -> None:
        """Wait for the end of what has begun."""
        for other, pending in work:
            if pending is not None:
                with self._named(operation, other):
                    pending.wait()

    def exchange_later(
        self, rows: Sequence[Tensor], row_counts: Sequence[int], columns: slice, purpose: str = "gradients"
    ) -> Callable[[], list[Tensor]]:
        """Begin to send each rank its shard of every row. What is returned waits for the end, and gives the shards of
        this rank that all ranks sent, in rank order. All ranks must begin in one order.

        `rows` are `row_counts[rank]` tensors of [ranks * shard]; of every shard its `columns` are exchanged. This
        rank's own come as views of `rows`, which must not change before the end. A true reduce-scatter's traffic:
        every rank sends (ranks - 1) / ranks of its rows.
        """
        own = [row.view(self.ranks, -1)[self.rank, columns] for row in rows]
        if self.ranks == 1:
            return lambda: own
        width = columns.stop - columns.start
        self.sent_bytes[purpose] += len(rows) * width * (self.ranks - 1) * 4
        begin = self._exchange_in_one if self.device.type == "cuda" else self._exchange_directly
        with self._named(f"exchange of {purpose}"):
            work, shards = begin(rows, own, row_counts, columns)

        def wait() -> list[Tensor]:
            self._await(work, f"exchange of {purpose}")
            return shards

        return wait

    def sum_of_two_later(self, row: Tensor, columns: slice, purpose: str = "gradients") -> Callable[[], None]:
        """Begin to add up what two ranks have in the `columns` of both shards of `row`, in place on both; what is
        returned waits for the end. Two numbers have one sum, whoever adds them up: no order has to be kept."""
        parts = [half[columns] for half in row.view(2, -1).unbind(0)]
        joined = [row] if len(parts[0]) * 2 == len(row) else parts
        self.sent_bytes[purpose] += sum(part.nbytes for part in joined)
        with self._named(f"exchange of {purpose}"):
            work = [(1 - self.rank, dist.all_reduce(part, async_op=True)) for part in joined]

        return lambda: self._await(work, f"exchange of {purpose}")

    @property
    def has_reduce_scatter(self) -> bool:
        """Whether the backend has a true one: gloo's is an all-reduce underneath."""
        return self.device.type == "cuda"

    def reduce_scatter_later(self, row: Tensor, columns: slice, purpose: str = "gradients") -> Callable[[], Tensor]:
        """Begin to add up the `columns` of each rank's shard of `row`, [ranks * shard], in the backend's own order.
        What is returned waits for the end, and gives this rank's sum."""
        parts = row.view(self.ranks, -1)[:, columns].reshape(-1)
        total = self._empty(columns.stop - columns.start)
        self.sent_bytes[purpose] += total.nbytes * (self.ranks - 1)
        with self._named(f"sum of {purpose}"):
            work = dist.reduce_scatter_tensor(total, parts, async_op=True)

        def wait() -> Tensor:
            self._await([(None, work)], f"sum of {purpose}")
            return total

        return wait

    def _exchange_directly(
        self, rows: Sequence[Tensor], own: list[Tensor], row_counts: Sequence[int], columns: slice
    ) -> tuple[list[Pending], list[Tensor]]:
        """gloo's all-to-all would copy this rank's own shards and wake a thread of its own; direct sends from where
        gradients are take three quarters of its processor time."""
        width = columns.stop - columns.start
        shards: list[Tensor] = []
        work: list[Pending] = []
        for other, count in enumerate(row_counts):
            come = own if other == self.rank else [self._empty(width) for _ in range(count)]
            shards += come
            work += [(other, dist.irecv(shard, other, tag=EXCHANGE)) for shard in come if other != self.rank]
        for other in self._others():
            sent = (row.view(self.ranks, -1)[other, columns] for row in rows)
            work += [(other, dist.isend(part, other, tag=EXCHANGE)) for part in sent]
        return work, shards

    def _exchange_in_one(
        self, rows: Sequence[Tensor], own: list[Tensor], row_counts: Sequence[int], columns: slice
    ) -> tuple[list[Pending], list[Tensor]]:
        width = columns.stop - columns.start
        outgoing = [row.view(self.ranks, -1)[to, columns] for to in range(self.ranks) for row in rows]
        incoming = self._empty(sum(row_counts) * width)
        counts, own_counts = [count * width for count in row_counts], [len(rows) * width] * self.ranks
        packed = torch.cat(outgoing) if outgoing else self._empty(0)
        work = dist.all_to_all_single(incoming, packed, counts, own_counts, async_op=True)
        return [(None, work)], list(incoming.view(-1, width).unbind(0))

    def _empty(self, count: int) -> Tensor:
        return torch.empty(count, dtype=torch.float32, device=self.device)

    def _others(self) -> list[int]:
        """The other ranks, each rank beginning with the next: no one is sent to by all at once."""
        return [(self.rank + shift) % self.ranks for shift in range(1, self.ranks)]

    def gather(self, full: Tensor, purpose: str = "parameters", shard: Tensor | None = None) -> None:
        """Fill `full` (1-D, a multiple of ranks) with the shards of all ranks, in place.

        This rank's own shard is taken from `shard`, or is in its place already.
        """
        self.gather_later(full, purpose, shard)()

    def gather_later(
        self, full: Tensor, purpose: str = "parameters", shard: Tensor | None = None
    ) -> Callable[[], None]:
        """Begin to gather as `gather` does; what is returned waits for its end. All ranks must begin in one order.

        gloo's all-gather would copy the whole through a second buffer; direct sends into place need none and send the
        same number of bytes.
        """
        parts = full.chunk(self.ranks)
        mine = parts[self.rank]
        if shard is not None:
            mine.copy_(shard)
        if self.ranks == 1:
            return _nothing
        self.sent_bytes[purpose] += mine.numel() * mine.element_size() * (self.ranks - 1)
        work: list[Pending]
        with self._named(f"gather of {purpose}"):
            if self.device.type == "cuda":
                work = [(None, dist.all_gather_into_tensor(full, mine.clone(), async_op=True))]
            else:
                others, tag = self._others(), GATHER[purpose]
                work = [(other, dist.irecv(parts[other], other, tag=tag)) for other in others]
                work += [(other, dist.isend(mine, other, tag=tag)) for other in others]

        return lambda: self._await(work, f"gather of {purpose}")

    def gather_to_first(self, shard: Tensor) -> Tensor | None:
        """The shards of all ranks end to end, on rank 0; None elsewhere."""
        if self.ranks == 1:
            return shard
        operation = "gather of the training state"
        if self.rank:
            with self._named(operation, 0):
                dist.send(shard, 0)
            self.sent_bytes["state"] += shard.numel() * shard.element_size()
            return None
        full = shard.new_empty(self.ranks, shard.numel())
        full[0] = shard
        for other in range(1, self.ranks):
            with self._named(operation, other):
                dist.recv(full[other], other)
        return full.view(-1)

    def agree(self, values: Tensor, operation: str = "sum") -> Tensor:
        """`values` combined over the ranks, in place: "sum" or "max". For values whose order does not matter."""
        if self.ranks > 1:
            with self._named(f"agreement ({operation})"):
                dist.all_reduce(values, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[operation])
            self.sent_bytes["control"] += 2 * values.numel() * values.element_size() * (self.ranks - 1) // self.ranks
        return values

    def from_first(self, value: int) -> int:
        """Rank 0's value, on every rank."""
        told = torch.tensor([value if self.rank == 0 else 0], dtype=torch.int64, device=self.device)
        return int(self.agree(told).item())

    def text_from_first(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        encoded = text.encode() if self.rank == 0 else b""
        told = torch.zeros(self.from_first(len(encoded)), dtype=torch.int32, device=self.device)
        if encoded:
            told += torch.tensor(list(encoded), device=self.device)
        return bytes(self.agree(told).tolist()).decode() if len(told) else ""


def _nothing() -> None:
    pass


def sum_of_squares(shards: Sequence[Tensor], rows: int, collectives: Collectives) -> float:
    """The sum of squares over all ranks' shards, the same to the bit however elements are dealt out to ranks.

    Each row of 64 elements, which no shard boundary cuts, has a norm of its own (float32); the squares of those are
    then rounded to integers at a scale that depends on the largest one only, and integers add up the same in any order.
    `rows` (of all ranks, at least; the same number for every partition) bounds the sum. Returns infinity where a square
    is not finite.
    """
    from stages.training.layout import ALIGNMENT

    norms = [torch.linalg.vector_norm(shard.view(-1, ALIGNMENT), dim=1) for shard in shards]
    sums = torch.cat(norms).double().square_()
    del norms
    peak = sums.max().nan_to_num(nan=math.inf, posinf=math.inf).view(1)  # left alone, infinity would become finite
    largest = float(collectives.agree(peak, "max"))
    if largest == 0 or math.isinf(largest):
        return largest
    scale = math.ldexp(1.0, 62 - rows.bit_length() - math.frexp(largest)[1])
    total = sums.mul_(scale).round_().to(torch.int64).sum().view(1)
    return int(collectives.agree(total)) / scale


def plain_sum_of_squares(shards: Sequence[Tensor], collectives: Collectives) -> float:
    """The same as it comes: rounded otherwise where elements are dealt out to ranks otherwise."""
    norm = torch.nn.utils.get_total_norm(shards).double().view(1)
    return float(collectives.agree(norm.square()))


@contextmanager
def joined(rank: Rank, timeout_s: float) -> Iterator[Collectives]:
    """Join the gang's other ranks: NCCL on GPUs, else gloo."""
    device = torch.device("cuda", rank.local_index) if rank.uses_gpu else torch.device("cpu")
    if rank.uses_gpu:
        torch.cuda.set_device(device)
    if rank.size == 1:
        yield Collectives(device=device)
        return
    if urlsplit(rank.rendezvous).hostname in LOOPBACK:
        # gloo looks its own address up by host name, which need not resolve where all ranks are on one machine.
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    timeout = datetime.timedelta(seconds=timeout_s)
    try:
        dist.init_process_group(
            "nccl" if rank.uses_gpu else "gloo",
            rank=rank.index,
            world_size=rank.size,
            timeout=timeout,
            **_meeting(rank, timeout),
        )
    except (RuntimeError, ValueError) as error:
        raise CollectiveError(
            f"rank {rank.index} of {rank.size} could not meet the others at {rank.rendezvous} within {timeout_s:g} s: "
            f"{error}. Check that the ranks' nodes reach each other, or raise collective_timeout_s"
        ) from error
    try:
        yield Collectives(rank.index, rank.size, device)
    finally:
        dist.destroy_process_group()


def _meeting(rank: Rank, timeout: datetime.timedelta) -> Mapping[str, Any]:
    """How `init_process_group` is to bring the ranks together."""
    address = urlsplit(rank.rendezvous)
    if address.scheme != "tcp":
        return {"init_method": rank.rendezvous}
    # torch takes the descriptor over, and closes it.
    listener = None if rank.listener is None else os.dup(rank.listener)
    host, first = str(address.hostname), rank.index == 0
    return {"store": dist.TCPStore(host, address.port or 0, rank.size, first, timeout, master_listen_fd=listener)}
