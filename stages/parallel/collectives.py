"""Collective operations between the ranks of a gang, with every byte sent and every second waited counted.

gloo implements reduce-scatter as an all-reduce (twice the traffic and a full-size copy), and the order in which NCCL
adds depends on the number of ranks. Gradients are therefore exchanged unsummed (by direct sends on gloo, by one
all-to-all on NCCL), and each owner adds the shards that it received in an order that the caller defines.

Operations named `start_...` return at once: they return a function that waits for the end of the operation and
returns its result. All ranks must start such operations in the same order. A stalled or failed operation raises
CollectiveError, which names the rank and the operation.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

# Tags keep direct sends of different kinds apart, since several can be in flight at the same time.
EXCHANGE_TAG, GATHER_TAGS = 1, {"parameters": 2, "gradients": 3}

Pending = tuple[int | None, dist.Work | None]  # the peer rank, if there is a single one, and the operation to wait for


class CollectiveError(RuntimeError):
    """Communication between ranks failed. It is not a StageError: the gang restarts after it has lost a rank."""


class Collectives:
    """The collective operations of one rank. With one rank nothing is sent and torch.distributed is not used.

    `sent_bytes` counts the payload that this rank has sent, by purpose: "gradients", "parameters", "state", "control".
    `seconds` is the time that this rank has spent in these calls, waiting for slower ranks included and transfers in
    the background excluded.
    """

    def __init__(self, rank: int = 0, ranks: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.ranks = ranks
        self.device = device or torch.device("cpu")
        self.sent_bytes: Counter[str] = Counter()
        self.seconds = 0.0

    # -- sums of gradients

    def start_exchange(
        self, rows: Sequence[Tensor], row_counts: Sequence[int], columns: slice, purpose: str = "gradients"
    ) -> Callable[[], list[Tensor]]:
        """Start an all-to-all: every rank sends each other rank that rank's shard of each of its rows.

        `rows`: `row_counts[rank]` float32 tensors, [ranks * shard] each, that must not change before the end. Only
        `columns` of every shard are exchanged. The result is this rank's shard of the rows of all ranks, in rank order,
        [columns] each; this rank's own are views of `rows`. A rank sends (ranks - 1) / ranks of its rows, as in a true
        reduce-scatter.
        """
        own = [row.view(self.ranks, -1)[self.rank, columns] for row in rows]
        if self.ranks == 1:
            return lambda: own
        width = columns.stop - columns.start
        self.sent_bytes[purpose] += len(rows) * width * (self.ranks - 1) * 4
        start = self._exchange_packed if self.device.type == "cuda" else self._exchange_directly
        with self._reported(f"exchange of {purpose}"):
            pending, shards = start(rows, own, row_counts, columns)

        def wait() -> list[Tensor]:
            self._wait(pending, f"exchange of {purpose}")
            return shards

        return wait

    def start_pair_sum(self, row: Tensor, columns: slice, purpose: str = "gradients") -> Callable[[], None]:
        """Start to add the `columns` of both shards of `row`, [2 * shard], over two ranks, in place on both.

        The sum of two numbers does not depend on their order, so any all-reduce gives the same bits.
        """
        parts = [half[columns] for half in row.view(2, -1).unbind(0)]
        joined = [row] if len(parts[0]) * 2 == len(row) else parts
        self.sent_bytes[purpose] += sum(part.nbytes for part in joined)
        with self._reported(f"exchange of {purpose}"):
            pending = [(1 - self.rank, dist.all_reduce(part, async_op=True)) for part in joined]

        return lambda: self._wait(pending, f"exchange of {purpose}")

    @property
    def has_reduce_scatter(self) -> bool:
        """Whether the backend implements a true reduce-scatter. gloo's is an all-reduce underneath."""
        return self.device.type == "cuda"

    def start_reduce_scatter(self, row: Tensor, columns: slice, purpose: str = "gradients") -> Callable[[], Tensor]:
        """Start to add the `columns` of each rank's shard of `row`, [ranks * shard], in the backend's own order.

        The result is the sum over all ranks of this rank's shard, [columns] float32.
        """
        parts = row.view(self.ranks, -1)[:, columns].reshape(-1)
        total = self._empty(columns.stop - columns.start)
        self.sent_bytes[purpose] += total.nbytes * (self.ranks - 1)
        with self._reported(f"sum of {purpose}"):
            work = dist.reduce_scatter_tensor(total, parts, async_op=True)

        def wait() -> Tensor:
            self._wait([(None, work)], f"sum of {purpose}")
            return total

        return wait

    def _exchange_directly(
        self, rows: Sequence[Tensor], own: list[Tensor], row_counts: Sequence[int], columns: slice
    ) -> tuple[list[Pending], list[Tensor]]:
        """gloo's all-to-all copies this rank's own shards and wakes a thread. Sending directly from the gradients takes
        three quarters of its processor time."""
        width = columns.stop - columns.start
        shards: list[Tensor] = []
        pending: list[Pending] = []
        for peer, count in enumerate(row_counts):
            received = own if peer == self.rank else [self._empty(width) for _ in range(count)]
            shards += received
            pending += [(peer, dist.irecv(shard, peer, tag=EXCHANGE_TAG)) for shard in received if peer != self.rank]
        for peer in self._peers():
            sent = (row.view(self.ranks, -1)[peer, columns] for row in rows)
            pending += [(peer, dist.isend(part, peer, tag=EXCHANGE_TAG)) for part in sent]
        return pending, shards

    def _exchange_packed(
        self, rows: Sequence[Tensor], own: list[Tensor], row_counts: Sequence[int], columns: slice
    ) -> tuple[list[Pending], list[Tensor]]:
        width = columns.stop - columns.start
        outgoing = [row.view(self.ranks, -1)[to, columns] for to in range(self.ranks) for row in rows]
        incoming = self._empty(sum(row_counts) * width)
        counts, own_counts = [count * width for count in row_counts], [len(rows) * width] * self.ranks
        packed = torch.cat(outgoing) if outgoing else self._empty(0)
        work = dist.all_to_all_single(incoming, packed, counts, own_counts, async_op=True)
        return [(None, work)], list(incoming.view(-1, width).unbind(0))

    # -- gathers

    def all_gather(self, full: Tensor, purpose: str = "parameters", shard: Tensor | None = None) -> None:
        """Fill `full` (one-dimensional, its length a multiple of ranks) with the shards of all ranks, in place.

        This rank's shard is copied from `shard`, or is in its place in `full` already if that is None.
        """
        self.start_all_gather(full, purpose, shard)()

    def start_all_gather(
        self, full: Tensor, purpose: str = "parameters", shard: Tensor | None = None
    ) -> Callable[[], None]:
        """Start what `all_gather` does.

        gloo's all-gather copies everything through a second buffer. Direct sends into place need no buffer and send the
        same number of bytes.
        """
        parts = full.chunk(self.ranks)
        own = parts[self.rank]
        if shard is not None:
            own.copy_(shard)
        if self.ranks == 1:
            return lambda: None
        self.sent_bytes[purpose] += own.numel() * own.element_size() * (self.ranks - 1)
        pending: list[Pending]
        with self._reported(f"gather of {purpose}"):
            if self.device.type == "cuda":
                pending = [(None, dist.all_gather_into_tensor(full, own.clone(), async_op=True))]
            else:
                peers, tag = self._peers(), GATHER_TAGS[purpose]
                pending = [(peer, dist.irecv(parts[peer], peer, tag=tag)) for peer in peers]
                pending += [(peer, dist.isend(own, peer, tag=tag)) for peer in peers]

        return lambda: self._wait(pending, f"gather of {purpose}")

    def gather_to_first(self, shard: Tensor) -> Tensor | None:
        """The shards of all ranks, concatenated in rank order, on rank 0; None on the others."""
        if self.ranks == 1:
            return shard
        operation = "gather of the training state"
        if self.rank:
            with self._reported(operation, 0):
                dist.send(shard, 0)
            self.sent_bytes["state"] += shard.numel() * shard.element_size()
            return None
        full = shard.new_empty(self.ranks, shard.numel())
        full[0] = shard
        for peer in range(1, self.ranks):
            with self._reported(operation, peer):
                dist.recv(full[peer], peer)
        return full.view(-1)

    # -- small values

    def all_reduce(self, values: Tensor, operation: Literal["sum", "max"] = "sum") -> Tensor:
        """`values` combined over all ranks, in place. For values whose sum does not depend on the order."""
        if self.ranks > 1:
            with self._reported(f"all-reduce ({operation})"):
                dist.all_reduce(values, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[operation])
            self.sent_bytes["control"] += 2 * values.numel() * values.element_size() * (self.ranks - 1) // self.ranks
        return values

    def broadcast_int(self, value: int) -> int:
        """Rank 0's value, on every rank."""
        shared = torch.tensor([value if self.rank == 0 else 0], dtype=torch.int64, device=self.device)
        return int(self.all_reduce(shared).item())

    def broadcast_text(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        encoded = text.encode() if self.rank == 0 else b""
        shared = torch.zeros(self.broadcast_int(len(encoded)), dtype=torch.int32, device=self.device)
        if encoded:
            shared += torch.tensor(list(encoded), device=self.device)
        return bytes(self.all_reduce(shared).tolist()).decode() if len(shared) else ""

    # -- waiting and errors

    @contextmanager
    def _reported(self, operation: str, peer: int | None = None) -> Iterator[None]:
        """Turn a failure inside into a CollectiveError that names the operation and, if there is one, the peer rank."""
        began = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            who = "another rank" if peer is None else f"rank {peer}"
            raise CollectiveError(
                f"rank {self.rank} of {self.ranks}: {operation} failed or stalled: {who} died, hangs, waits for "
                f"another one that does, or cannot be reached ({reason}). Run again to resume from the last "
                "checkpoint; if the ranks are only slow, raise collective_timeout_s"
            ) from error
        finally:
            self.seconds += time.perf_counter() - began

    def _wait(self, pending: Iterable[Pending], operation: str) -> None:
        for peer, work in pending:
            if work is not None:
                with self._reported(operation, peer):
                    work.wait()

    def _empty(self, count: int) -> Tensor:
        return torch.empty(count, dtype=torch.float32, device=self.device)

    def _peers(self) -> list[int]:
        """The other ranks, beginning with the next one, so that not all ranks send to the same one at once."""
        return [(self.rank + shift) % self.ranks for shift in range(1, self.ranks)]
