"""The cost of a training step: seconds by kind of work, bytes sent, and operations, as seen by one rank."""

from __future__ import annotations

import time

import torch

from stages.parallel.collectives import Collectives
from stages.training.flops import measured_peak, utilisation
from stages.training.recipe import Execution, Recipe
from stages.training.task import Task


class ThroughputMeter:
    """Call `start` and `stop` around each step; `stop` returns the step's metrics.

    Seconds of communication are those in which computation waited for it. On a GPU collectives run asynchronously to
    the host, so that their time is counted as computation.
    """

    def __init__(self, task: Task, recipe: Recipe, execution: Execution, collectives: Collectives) -> None:
        self._task, self._collectives = task, collectives
        self._peak_flops_per_s = 0.0
        if task.flops_per_target and collectives.rank == 0:
            dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[recipe.precision]
            configured = execution.peak_tflops
            self._peak_flops_per_s = configured * 1e12 if configured else measured_peak(dtype, collectives.device)

    def start(self) -> None:
        self._before = self._clocks()

    def stop(self, targets: float) -> dict[str, float]:
        """Metrics of a step that predicted `targets` tokens, over all ranks."""
        before, after = self._before, self._clocks()
        seconds, communication, data, sent = (now - then for now, then in zip(after, before, strict=True))
        metrics = {
            "tokens_per_second": targets / seconds,
            "seconds_per_step": seconds,
            "seconds_computation": seconds - communication - data,
            "seconds_communication": communication,
            "seconds_data": data,
            "sent_bytes_per_step": sent,
        }
        if self._peak_flops_per_s:
            flops = self._task.flops_per_target * targets / self._collectives.ranks
            metrics["tflops_per_rank"] = flops / seconds / 1e12
            metrics["model_flops_utilisation"] = utilisation(flops, seconds, self._peak_flops_per_s)
        return metrics

    def _clocks(self) -> tuple[float, float, float, float]:
        sent = float(self._collectives.sent_bytes.total())
        return time.perf_counter(), self._collectives.seconds, self._task.data_seconds(), sent
