"""The losses of a batch's micro-batches, added exactly: the result does not depend on which rank computed which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.base import StageError
from stages.parallel.collectives import Collectives
from stages.training.task import Loss, Task


@dataclass(frozen=True)
class BatchMeans:
    """The means of a batch over its targets."""

    targets: float
    loss: float  # per target
    metrics: Mapping[str, float]  # per target
    groups: Mapping[str, float]  # loss per target of each group that has targets in the batch


class BatchLosses:
    """A table with a row for each micro-batch. One rank fills each row, so adding the ranks' tables adds only zeros.
    The columns are then added exactly."""

    def __init__(self, micro_batches: int, task: Task, collectives: Collectives) -> None:
        self._task, self._collectives = task, collectives
        columns = 2 + len(task.metric_names) + 2 * len(task.group_names)
        self._table = torch.zeros(micro_batches, columns, dtype=torch.float64)

    def put(self, micro_batch: int, loss: Loss) -> None:
        """Store the loss of a micro-batch. That of a spare turn (a number that the batch does not have) is ignored.

        Raises ValueError if the loss does not have the metrics that the task names.
        """
        if micro_batch >= len(self._table):
            return
        shown = loss.total if loss.reported is None else loss.reported
        row, metrics, groups = self._table[micro_batch], len(self._task.metric_names), len(self._task.group_names)
        row[0] = loss.targets
        row[1] = shown.detach()
        if metrics:
            if loss.metrics is None or loss.metrics.shape != (metrics,):
                raise ValueError(f"the task names {metrics} metrics, but its loss has {loss.metrics}")
            row[2 : 2 + metrics] = loss.metrics.detach()
        if groups and loss.groups is not None:
            row[2 + metrics :] = loss.groups.reshape(-1)

    def combine(self, *flags: bool) -> list[bool]:
        """Combine the tables of all ranks, and a few flags: each is true if it is true on any rank. Every rank must
        call it."""
        packed = torch.cat([self._table.view(-1), torch.tensor(flags, dtype=torch.float64)])
        packed = self._collectives.all_reduce(packed.to(self._collectives.device)).cpu()
        self._table = packed[: self._table.numel()].view_as(self._table)
        return [bool(flag) for flag in packed[self._table.numel() :]]

    def means(self) -> BatchMeans:
        """The means over the batch. Raises StageError if it has no target."""
        targets, loss, *rest = (_sum(column) for column in self._table.T.tolist())
        if not targets > 0:
            raise StageError("a batch has no target to predict: check the data and its mask")
        names, groups = self._task.metric_names, self._task.group_names
        metrics, of_groups = rest[: len(names)], rest[len(names) :]
        by_group = zip(groups, of_groups[: len(groups)], of_groups[len(groups) :], strict=True)
        return BatchMeans(
            targets,
            loss / targets,
            {name: value / targets for name, value in zip(names, metrics, strict=True)},
            {name: value / count for name, value, count in by_group if count},
        )


def sums_by_group(losses: Tensor, groups: Tensor, count: int) -> Tensor:
    """The sum of `losses`, [targets], and the number of targets in each group: [2, count] float64.

    `groups`: [kinds, targets] int64, below `count`: the group of each target, once for each kind of grouping.
    """
    sums = torch.zeros(2, count, dtype=torch.float64, device=losses.device)
    for kind in groups:
        sums[0].index_add_(0, kind, losses.double())
        sums[1].index_add_(0, kind, torch.ones_like(losses, dtype=torch.float64))
    return sums


def _sum(values: Sequence[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan
