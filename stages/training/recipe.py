"""What a training run computes (`Recipe`) and how it is carried out (`Execution`): typed values, no torch.

A stage that trains inherits both (`Training`), so that its YAML has every field flat. Training is bitwise the same for
every number of ranks and every ZeRO stage: those are `Execution`, and never enter a fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.base import Config, Runtime
from stages.training.ramp import BatchSizeRamp

Precision = Literal["float32", "bfloat16"]
# Where a part of the training state is: with the computation, in (pinned) host memory, in files. On a CPU the first two
# are one.
Place = Literal["none", "host", "file"]


class Recipe(Config):
    """Everything that the trained weights depend on, apart from the model and the data."""

    steps: PositiveInt = Field(1000, description="optimizer steps")
    global_batch_size: PositiveInt = Field(32, description="samples in one optimizer step, over all ranks")
    batch_size_ramp: BatchSizeRamp | None = Field(None, description="smaller batches at first; None: full size at once")
    micro_batch_size: PositiveInt = Field(8, description="samples in one forward and backward pass; fixes the grid")
    sequence_length: PositiveInt = Field(256, description="tokens that one sample predicts")
    learning_rate: PositiveFloat = Field(1e-3, description="the peak, reached after the warm-up")
    schedule: Literal["cosine", "linear", "warmup_stable_decay", "constant"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    decay_steps: PositiveInt | None = Field(None, description="steps of decay; None: all after the warm-up")
    final_learning_rate_fraction: float = Field(0.1, ge=0, le=1, description="of the peak, when the decay has ended")
    weight_decay: NonNegativeFloat = Field(0.1, description="of matrices and embeddings; never of norms and biases")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    epsilon: PositiveFloat = 1e-8
    gradient_clipping: PositiveFloat | None = Field(1.0, description="global norm to clip at; None: never")
    precision: Precision = Field("float32", description="of compute; master weights and moments are always float32")
    seed: NonNegativeInt = Field(42, description="of the initialisation and the order of the data")
    validation_every: PositiveInt = Field(100, description="steps between two validations; the last step has one")
    validation_samples: PositiveInt = Field(64, description="fixed samples, spread evenly over the validation split")
    loss_spike_factor: float | None = Field(None, gt=1, description="skip a batch whose loss is so many medians")
    gradient_spike_factor: float | None = Field(None, gt=1, description="the same for the norm of its gradient")
    spike_window: int = Field(128, ge=8, description="batches whose median that is; full before any is called a spike")
    skipped_batches_limit: PositiveInt = Field(5, description="consecutive batches to skip before giving up")
    stop_after_tokens: PositiveInt | None = Field(None, description="end with the step that reaches so many targets")
    stop_at_validation_loss: PositiveFloat | None = Field(None, description="end with a validation at or below it")
    patience: PositiveInt | None = Field(None, description="end after so many validations without a new lowest loss")
    stop_after_s: PositiveFloat | None = Field(
        None, description="end after so many seconds of training, restarts included; not reproducible"
    )
    compiled: bool = Field(False, description="torch.compile the blocks: faster where it pays, but other bits")
    free_order_ranks: PositiveInt | None = Field(
        None, description="add gradients up as they come, on exactly so many ranks; None: in an order for any number"
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
        ramp, steps, said = self.batch_size_ramp, float(self.steps), f"steps {self.steps}"
        if ramp:  # what the learning rate follows are samples: those of the ramped steps make fewer of the full size
            steps = ramp.taken(self.steps, self.global_batch_size) / self.global_batch_size
            said += f", whose samples make {steps:.1f} steps of global_batch_size {self.global_batch_size}"
        if self.warmup_steps >= steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be fewer than {said}")
        if self.decay_steps is not None and self.warmup_steps + self.decay_steps > steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and decay_steps {self.decay_steps} together exceed {said}"
            )
        return self

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one optimizer step of the full size: the leaves of the tree that gradients are summed in."""
        return self.global_batch_size // self.micro_batch_size

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Every number of samples that a step can have, ascending."""
        ramp = self.batch_size_ramp
        return ramp.sizes(self.global_batch_size) if ramp else (self.global_batch_size,)

    def batch_size(self, samples: int) -> int:
        """Samples of the step before which `samples` were taken."""
        ramp = self.batch_size_ramp
        return ramp.size(samples, self.global_batch_size) if ramp else self.global_batch_size


class Execution(Config):
    """How a training run is carried out. None of it changes a bit of the result."""

    ranks: Runtime[PositiveInt] = Field(1, description="processes that share the work")
    gpus_per_rank: Runtime[Literal[0, 1]] = Field(0, description="1: a GPU each, and NCCL; 0: CPUs, and gloo")
    zero_stage: Runtime[Literal[0, 1, 2, 3]] = Field(
        1, description="what ranks share out: 1 optimizer states, 2 gradients as well, 3 parameters as well"
    )
    minimum_ranks: Runtime[PositiveInt | None] = Field(
        None, description="with how few ranks it goes on where there is no room for all; None: with all or not at all"
    )
    recompute: Runtime[Literal["none", "full", "selective"]] = Field(
        "none", description="in the backward pass: nothing, whole blocks, or all of them but their matrix products"
    )
    recompute_every: Runtime[PositiveInt] = Field(1, description="every how many blocks one is computed again")
    offload_activations: Runtime[Place] = Field("none", description="where inputs of recomputed blocks wait")
    offload_optimizer: Runtime[Place] = Field("none", description="where moments and master weights are kept")
    offload_parameters: Runtime[Place] = Field("none", description="where shards of parameters are kept (stage 3)")
    offload_folder: Runtime[str | None] = Field(None, description="of offloaded files; None: in the step's scratch")
    bucket_bytes: Runtime[int] = Field(64 << 20, ge=1024, description="of gradients that ranks exchange at a time")
    checkpoint_every_s: Runtime[NonNegativeFloat] = Field(60.0, description="seconds between two checkpoints")
    checkpoint_every_steps: Runtime[PositiveInt | None] = Field(None, description="a checkpoint at these steps as well")
    checkpoints_kept: Runtime[PositiveInt] = Field(2, description="older ones are removed")
    checkpoint_buffer_bytes: Runtime[NonNegativeInt] = Field(
        1 << 30, description="of rank 0's memory, for a checkpoint that is written while training goes on"
    )
    peak_tflops: Runtime[PositiveFloat | None] = Field(
        None, description="of one rank's device, which utilisation is a share of; None: measured at the start"
    )
    collective_timeout_s: Runtime[PositiveFloat] = Field(300.0, description="after which a stalled rank is an error")
    max_restarts: Runtime[NonNegativeInt] = Field(3, description="of the whole gang when a rank is lost")

    @model_validator(mode="after")
    def _can_be_carried_out(self) -> Self:
        if self.minimum_ranks is not None and self.minimum_ranks > self.ranks:
            raise ValueError(f"minimum_ranks {self.minimum_ranks} must be at most ranks {self.ranks}")
        if self.offload_parameters != "none" and self.zero_stage != 3:
            raise ValueError(
                f"offload_parameters: {self.offload_parameters} needs zero_stage 3, not {self.zero_stage}: below it "
                "every rank computes with all parameters in place"
            )
        if self.offload_activations != "none" and self.recompute == "none":
            raise ValueError(
                f"offload_activations: {self.offload_activations} moves the inputs of recomputed blocks away: set "
                "recompute to full or selective"
            )
        return self

    def moved(self, place: Place) -> bool:
        """Whether what is at `place` is out of the memory that a rank computes in."""
        return place == "file" or (place == "host" and self.gpus_per_rank > 0)


class Training(Recipe, Execution):
    """What a stage that trains has of both."""

    version: ClassVar[str] = "2"  # gradients are scaled, their norm taken and bfloat16 summed in another way

    @model_validator(mode="after")
    def _free_order_can_be_kept(self) -> Self:
        free = self.free_order_ranks
        if free is None:
            return self
        if self.ranks != free or self.minimum_ranks not in (None, free):
            raise ValueError(
                f"free_order_ranks {free} trains to other bits on another number of ranks, but ranks is {self.ranks} "
                f"and minimum_ranks {self.minimum_ranks}: set ranks to {free} and leave minimum_ranks out"
            )
        if self.zero_stage > 1:
            raise ValueError(
                f"free_order_ranks is for zero_stage 0 and 1, not {self.zero_stage}: from stage 2 on gradients are "
                "summed micro-batch by micro-batch, and the fixed order costs nothing more"
            )
        return self


def part(kind: type[Config], source: Config) -> Mapping[str, object]:
    """The fields of `kind` out of a config that inherits it: `Recipe(**part(Recipe, stage))`."""
    return {name: getattr(source, name) for name in kind.model_fields}
