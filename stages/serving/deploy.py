"""Serve a model once, for real: hold it to its promises over HTTP, measure it, and leave what production needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stages.artifacts.checkpoint import Checkpoint, known_config
from stages.base import Context, Demand, Resources, Runtime, Stage
from stages.model.footprint import RUNTIME_BYTES, cache_bytes, forward_bytes, weight_bytes
from stages.serving.deployment import TRIAL, Deployment, Serving, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stages.serving.trial import Load

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Deploy(Stage):
    """Serves a Checkpoint on the cluster, sends it real requests and measures the answers. Leaves a Deployment."""

    headline: ClassVar[str | None] = "time_to_first_token_ms"

    model: Checkpoint
    model_name: _Name = "bloomline"  # what clients call it
    registered_name: _Name | None = None  # its name in the model registry; null: `model_name`
    alias: _Name = "champion"  # the registry alias that points to this version
    replicas: PositiveInt = 1
    cpus_per_replica: float = Field(default=1.0, gt=0)
    gpus_per_replica: float = Field(default=0.0, ge=0)
    max_running: PositiveInt = 8  # sequences in a replica's running batch
    max_waiting: NonNegativeInt = 64  # and waiting for it; more are refused with 429
    prefill_chunk: PositiveInt = 256  # prompt tokens read between two steps of the running batch

    prompt: str = Field(default="def ", min_length=1)  # what the model is asked to complete
    max_tokens: PositiveInt = 48
    temperature: float = Field(default=0.7, ge=0, le=100)
    trial_requests: Runtime[PositiveInt] = 16  # for each of the two measurements
    trial_concurrency: Runtime[PositiveInt] = 8  # clients at once in the second

    @model_validator(mode="after")
    def _alias_is_free(self) -> Self:
        if self.alias == "latest" or (self.alias[0] in "vV" and self.alias[1:].isdecimal()):
            raise ValueError(f"alias: {self.alias!r} is reserved by the model registry; say 'champion', for example")
        return self

    def demand(self) -> Demand:
        # The step itself only sends requests; its replicas are what needs room.
        config, needed = known_config(self.model), 0
        if config is not None and not self.gpus_per_replica:  # on a GPU it lies there
            computing = forward_bytes(config, 1, self.prefill_chunk)
            needed = RUNTIME_BYTES + weight_bytes(config) + cache_bytes(config, self.max_running) + computing
        replica = Resources(cpus=self.cpus_per_replica, gpus=self.gpus_per_replica, memory_bytes=needed)
        return Demand(task=Resources(cpus=0), ranks=self.replicas, rank=replica, unit="replica")

    def run(self, ctx: Context) -> Deployment:
        from stages.serving.trial import Client, check, measure, summary

        deployment = write(ctx.out, self._serving(), self.model)
        body = {
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": 0,
        }
        ctx.note(f"starting {self.replicas} replica{'s' if self.replicas > 1 else ''} of {self.model_name}")
        served = ctx.serve(deployment.application())
        try:
            client = Client(served.url)
            text = check(client, self.model_name, body)
            ctx.highlight("completion", self.prompt + text)
            bodies = [{**body, "seed": 1 + index} for index in range(self.trial_requests)]
            alone = measure(client, bodies, 1)
            ctx.progress(len(bodies), 2 * len(bodies), "requests")
            together = measure(client, bodies, self.trial_concurrency)
            ctx.progress(2 * len(bodies), 2 * len(bodies), "requests")
        finally:
            served.stop()
        if [timing.text for timing in alone.timings] != [timing.text for timing in together.timings]:
            ctx.note("some texts of one seed differ between one client and several at once: rounding in batches")
        metrics = summary(alone, together)
        ctx.metrics(metrics)
        ctx.figure("latency", _figure(alone, together))
        (ctx.out / TRIAL).write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        return deployment

    def _serving(self) -> Serving:
        return Serving(
            model_name=self.model_name,
            registered_name=self.registered_name or self.model_name,
            alias=self.alias,
            replicas=self.replicas,
            cpus=self.cpus_per_replica,
            gpus=self.gpus_per_replica,
            max_running=self.max_running,
            max_waiting=self.max_waiting,
            prefill_chunk=self.prefill_chunk,
        )


def _figure(alone: Load, together: Load) -> Figure:
    """Time to first token (left), and tokens a second (right), for one client and for several."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for load in (alone, together):
        values = sorted(1000 * timing.first_token_s for timing in load.timings)
        shares = [100 * (index + 1) / len(values) for index in range(len(values))]
        left.step([values[0], *values], [0, *shares], where="post", label=_clients(load))
    left.set(xlabel="time to first token (ms)", ylabel="requests (%)", ylim=(0, 102))
    left.set_xlim(left=0)
    left.legend(loc="lower right", frameon=False)
    bars = right.bar([_clients(alone), _clients(together)], [alone.tokens_per_second, together.tokens_per_second])
    bars[0].set_color("C0")
    bars[1].set_color("C1")
    right.bar_label(bars, fmt="%.0f")
    right.set(ylabel="tokens per second")
    right.margins(y=0.15)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _clients(load: Load) -> str:
    return f"{load.concurrency} client{'s' if load.concurrency > 1 else ''}"
