"""What a training run computes (`Recipe`) and how it is carried out (`Execution`): typed values, free of torch.

A stage that trains inherits both (`Training`), so that all fields are at one level of its YAML. Training is bitwise the
same for every number of ranks and every ZeRO stage: those are fields of `Execution`, and never enter a fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.base import Config, Runtime
from stages.training.ramp import BatchSizeRamp

Precision = Literal["float32", "bfloat16"]
# Where a part of the training state is kept: on the device that computes, in (pinned) host memory, or in files. For a
# rank that computes on the CPU the first two are the same.
OffloadTarget = Literal["none", "host", "file"]


class Recipe(Config):
    """Everything that the trained weights depend on, apart from the model and the data."""

    steps: PositiveInt = Field(1000, description="optimizer steps")
    global_batch_size: PositiveInt = Field(32, description="samples in one optimizer step, over all ranks")
    batch_size_ramp: BatchSizeRamp | None = Field(
        None, description="smaller batches at first; null: the full size at once"
    )
    micro_batch_size: PositiveInt = Field(
        8, description="samples in one forward and backward pass; sums over micro-batches depend on it"
    )
    sequence_length: PositiveInt = Field(256, description="tokens that one sample predicts")
    learning_rate: PositiveFloat = Field(1e-3, description="the peak, reached after the warm-up")
    schedule: Literal["cosine", "linear", "warmup_stable_decay", "constant"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    decay_steps: PositiveInt | None = Field(None, description="steps of decay; null: all steps after the warm-up")
    final_learning_rate_fraction: float = Field(
        0.1, ge=0, le=1, description="the learning rate after the decay, as a fraction of the peak"
    )
    weight_decay: NonNegativeFloat = Field(0.1, description="of matrices and embeddings; never of norms and biases")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    epsilon: PositiveFloat = 1e-8
    gradient_clipping: PositiveFloat | None = Field(1.0, description="global norm to clip at; null: no clipping")
    precision: Precision = Field(
        "float32", description="of forward and backward passes; master weights and moments are always float32"
    )
    seed: NonNegativeInt = Field(42, description="of the initialisation and the order of the data")
    validation_every: PositiveInt = Field(
        100, description="steps between two validations; the last step always has one"
    )
    validation_samples: PositiveInt = Field(64, description="fixed samples, spread evenly over the validation split")
    loss_spike_factor: float | None = Field(
        None, gt=1, description="skip a batch whose loss is more than this factor times the median"
    )
    gradient_spike_factor: float | None = Field(
        None, gt=1, description="skip a batch whose gradient norm is more than this factor times the median"
    )
    spike_window: int = Field(
        128, ge=8, description="batches that the median is over; no batch is a spike before the window is full"
    )
    skipped_batches_limit: PositiveInt = Field(5, description="consecutive skipped batches after which training fails")
    stop_after_tokens: PositiveInt | None = Field(
        None, description="end with the step that reaches this number of targets"
    )
    stop_at_validation_loss: PositiveFloat | None = Field(
        None, description="end with the first validation at or below this loss"
    )
    patience: PositiveInt | None = Field(
        None, description="end after this number of validations without a new lowest loss"
    )
    stop_after_s: PositiveFloat | None = Field(
        None, description="end after this number of seconds of training, restarts included; not reproducible"
    )
    compiled: bool = Field(
        False, description="torch.compile the blocks; can be faster, and changes the last bits of the result"
    )
    free_order_ranks: PositiveInt | None = Field(
        None,
        description="add gradients in the order of computation, on exactly this number of ranks; null: in an order "
        "that gives the same bits for every number of ranks",
    )
    threads_per_rank: PositiveInt = Field(1, description="of compute; part of the recipe as it can change rounding")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size}: choose one that is"
            )
        if self.batch_size_ramp:
            self.batch_size_ramp.check(self.global_batch_size, self.micro_batch_size)
        ramp, steps, described = self.batch_size_ramp, float(self.steps), f"steps {self.steps}"
        if ramp:  # the learning rate follows samples, and the steps of the ramp are fewer steps of the full size
            steps = ramp.taken(self.steps, self.global_batch_size) / self.global_batch_size
            described += f", whose samples are those of {steps:.1f} steps of global_batch_size {self.global_batch_size}"
        if self.warmup_steps >= steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be less than {described}")
        if self.decay_steps is not None and self.warmup_steps + self.decay_steps > steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and decay_steps {self.decay_steps} together exceed {described}"
            )
        return self

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one optimizer step of the full size, over all ranks."""
        return self.global_batch_size // self.micro_batch_size

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Every number of samples that a step can have, ascending."""
        ramp = self.batch_size_ramp
        return ramp.sizes(self.global_batch_size) if ramp else (self.global_batch_size,)

    @property
    def may_end_early(self) -> bool:
        """Whether training can end before `steps` steps."""
        limits = (self.stop_after_tokens, self.stop_at_validation_loss, self.patience, self.stop_after_s)
        return any(limit is not None for limit in limits)

    def batch_size(self, samples: int) -> int:
        """Samples of the step that follows `samples` samples."""
        ramp = self.batch_size_ramp
        return ramp.size(samples, self.global_batch_size) if ramp else self.global_batch_size


class Execution(Config):
    """How a training run is carried out. No field changes a bit of the result."""

    ranks: Runtime[PositiveInt] = Field(1, description="processes that share the work")
    gpus_per_rank: Runtime[Literal[0, 1]] = Field(
        0, description="1: one GPU for each rank, and NCCL; 0: CPUs, and gloo"
    )
    zero_stage: Runtime[Literal[0, 1, 2, 3]] = Field(
        1, description="what is sharded over ranks: 1 optimizer states, 2 gradients as well, 3 parameters as well"
    )
    minimum_ranks: Runtime[PositiveInt | None] = Field(
        None, description="the fewest ranks to train on if the cluster has no room for all; null: all or none"
    )
    recompute: Runtime[Literal["none", "full", "selective"]] = Field(
        "none",
        description="what the backward pass recomputes: nothing, whole blocks, or blocks except their matrix products",
    )
    recompute_every: Runtime[PositiveInt] = Field(1, description="recompute one of every this number of blocks")
    offload_activations: Runtime[OffloadTarget] = Field(
        "none", description="where the inputs of recomputed blocks are kept"
    )
    offload_optimizer: Runtime[OffloadTarget] = Field("none", description="where moments and master weights are kept")
    offload_parameters: Runtime[OffloadTarget] = Field(
        "none", description="where shards of parameters are kept (stage 3)"
    )
    offload_folder: Runtime[str | None] = Field(
        None, description="folder of offloaded files; null: the step's scratch folder"
    )
    bucket_bytes: Runtime[int] = Field(
        64 << 20, ge=1024, description="gradients that ranks exchange in one operation, at most"
    )
    checkpoint_every_s: Runtime[NonNegativeFloat] = Field(60.0, description="seconds between two checkpoints")
    checkpoint_every_steps: Runtime[PositiveInt | None] = Field(
        None, description="also save a checkpoint every this number of steps"
    )
    checkpoints_kept: Runtime[PositiveInt] = Field(2, description="newest checkpoints to keep; older ones are removed")
    checkpoint_buffer_bytes: Runtime[NonNegativeInt] = Field(
        64 << 20, description="memory of rank 0 for a checkpoint that is written while training continues"
    )
    peak_tflops: Runtime[PositiveFloat | None] = Field(
        None, description="peak of one rank's device, for the utilisation metric; null: measured at the start"
    )
    collective_timeout_s: Runtime[PositiveFloat] = Field(
        300.0, description="seconds after which a stalled rank is an error"
    )
    max_restarts: Runtime[NonNegativeInt] = Field(3, description="restarts of the whole gang after the loss of a rank")

    @model_validator(mode="after")
    def _feasible(self) -> Self:
        if self.minimum_ranks is not None and self.minimum_ranks > self.ranks:
            raise ValueError(f"minimum_ranks {self.minimum_ranks} must be at most ranks {self.ranks}")
        if self.offload_parameters != "none" and self.zero_stage != 3:
            raise ValueError(
                f"offload_parameters: {self.offload_parameters} needs zero_stage 3, not {self.zero_stage}: at lower "
                "stages every rank keeps all parameters in memory"
            )
        if self.offload_activations != "none" and self.recompute == "none":
            raise ValueError(
                f"offload_activations: {self.offload_activations} moves the inputs of recomputed blocks: set "
                "recompute to full or selective"
            )
        return self

    def is_offloaded(self, target: OffloadTarget) -> bool:
        """Whether what is kept at `target` is outside the memory of the device that computes."""
        return target == "file" or (target == "host" and self.gpus_per_rank > 0)


class Training(Recipe, Execution):
    """All fields of a stage that trains."""

    version: ClassVar[str] = "2"  # gradients are scaled, their norm is taken and bfloat16 is summed in another way

    @model_validator(mode="after")
    def _free_order_is_feasible(self) -> Self:
        free = self.free_order_ranks
        if free is None:
            return self
        if self.ranks != free or self.minimum_ranks not in (None, free):
            raise ValueError(
                f"free_order_ranks {free} gives other bits on another number of ranks, but ranks is {self.ranks} "
                f"and minimum_ranks {self.minimum_ranks}: set ranks to {free} and leave minimum_ranks out"
            )
        if self.zero_stage > 1:
            raise ValueError(
                f"free_order_ranks is for zero_stage 0 and 1, not {self.zero_stage}: from stage 2 on gradients are "
                "added after every micro-batch, and the fixed order costs nothing more"
            )
        return self


def fields_of(kind: type[Config], source: Config) -> Mapping[str, object]:
    """The fields of `kind` from a config that inherits it, for `kind.model_validate`."""
    return {name: getattr(source, name) for name in kind.model_fields}
