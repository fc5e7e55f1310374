"""Losses of a batch, micro-batch by micro-batch, summed the same way whoever computed which."""

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
class Means:
    """What a batch came to."""

    targets: float
    loss: float  # per target
    metrics: Mapping[str, float]  # per target
    groups: Mapping[str, float]  # loss per target of each group that has one


class Sums:
    """A table with a row for each micro-batch. One rank fills each row, so sharing them adds zeros only; columns are
    then summed exactly."""

    def __init__(self, rows: int, task: Task, collectives: Collectives) -> None:
        self.task = task
        self.collectives = collectives
        columns = 2 + len(task.metric_names) + 2 * len(task.group_names)
        self.table = torch.zeros(rows, columns, dtype=torch.float64)

    def put(self, row: int, loss: Loss) -> None:
        if row >= len(self.table):
            return  # a spare turn: the micro-batch is another rank's
        shown = loss.total if loss.reported is None else loss.reported
        metrics, groups = len(self.task.metric_names), len(self.task.group_names)
        self.table[row, 0] = loss.targets
        self.table[row, 1] = shown.detach()
        if metrics:
            if loss.metrics is None or loss.metrics.shape != (metrics,):
                raise ValueError(f"the task names {metrics} metrics, but its loss has {loss.metrics}")
            self.table[row, 2 : 2 + metrics] = loss.metrics.detach()
        if groups and loss.groups is not None:
            self.table[row, 2 + metrics :] = loss.groups.reshape(-1)

    def combine(self, *flags: bool) -> list[bool]:
        """Share the table, and a few flags: true if true on any rank."""
        packed = torch.cat([self.table.view(-1), torch.tensor(flags, dtype=torch.float64)])
        packed = self.collectives.agree(packed.to(self.collectives.device)).cpu()
        self.table = packed[: self.table.numel()].view_as(self.table)
        return [bool(flag) for flag in packed[self.table.numel() :]]

    def means(self) -> Means:
        """Raises StageError if no target was predicted."""
        targets, loss, *rest = (_sum(column) for column in self.table.T.tolist())
        if not targets > 0:
            raise StageError("a batch has no target to predict: check the data and its mask")
        names, groups = self.task.metric_names, self.task.group_names
        metrics, of_groups = rest[: len(names)], rest[len(names) :]
        by_group = zip(groups, of_groups[: len(groups)], of_groups[len(groups) :], strict=True)
        return Means(
            targets,
            loss / targets,
            {name: value / targets for name, value in zip(names, metrics, strict=True)},
            {name: value / count for name, value, count in by_group if count},
        )


def by_group(losses: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sums of `losses` [targets] by `groups` [kinds, targets] (numbers below `count`), and how many each has:
    [2, count], float64."""
    sums = torch.zeros(2, count, dtype=torch.float64, device=losses.device)
    for kind in groups:
        sums[0].index_add_(0, kind, losses.double())
        sums[1].index_add_(0, kind, torch.ones_like(losses, dtype=torch.float64))
    return sums


def _sum(values: Sequence[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan
