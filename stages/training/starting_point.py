"""What training starts from: the weights of a checkpoint, or the whole state of the training that made it.

    take       | weights | moments | learning rate, place in the data
    weights    | yes     | zero    | from the beginning
    optimizer  | yes     | yes     | from the beginning
    run        | yes     | yes     | continued

Free of torch: `plan` checks here what it can.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.artifacts.checkpoint import Checkpoint, CheckpointForecast, known_config
from stages.base import Config, Edge, StageError
from stages.model.config import DecoderConfig

KeptState = Literal["none", "end", "before_decay"]
Taken = Literal["weights", "optimizer", "run"]


class StartingPoint(Config):
    """A checkpoint, and how much of the state of the training that made it is taken."""

    checkpoint: Checkpoint
    take: Taken = Field(
        "weights",
        description="weights: the weights alone; optimizer: also the optimizer's moments; run: also the step, the "
        "learning rate and the place in the data, so that `steps` counts from the beginning of that training. The "
        "last two need a checkpoint whose training had keep_training_state",
    )

    def config(self, sequence_length: int) -> DecoderConfig | None:
        """The architecture, with a context of at least `sequence_length` tokens; None while it is not known.

        Raises StageError if training cannot start from the checkpoint.
        """
        config = known_config(self.checkpoint)
        if config is None:
            return None
        if config.quantization is not None:
            raise StageError(
                f"initial.checkpoint: {_name(self.checkpoint)} is quantized ({config.quantization}), and only weights "
                "in floating point can be trained: name the step that it was quantized from"
            )
        if sequence_length <= config.context_length:
            return config
        if config.position == "learned":
            raise StageError(
                f"sequence_length {sequence_length} is longer than the context_length {config.context_length} of "
                f"{_name(self.checkpoint)}, whose positions are learned: there is no weight for the later ones. Set "
                f"sequence_length to at most {config.context_length}"
            )
        return config.model_copy(update={"context_length": sequence_length})

    def refuse_missing_state(self, steps: int) -> None:
        """Raise StageError if the plan knows that the checkpoint lacks the state that is taken from it, or that a
        continued training of `steps` steps is already over."""
        forecast = self.checkpoint.forecast if isinstance(self.checkpoint, Edge) else None
        if self.take == "weights" or not isinstance(forecast, CheckpointForecast):
            return
        self.check_state(forecast.state_step, steps)

    def check_state(self, state_step: int | None, steps: int) -> None:
        """The same for a checkpoint with the training state after `state_step` steps, or None."""
        if self.take == "weights":
            return
        if state_step is None:
            raise StageError(
                f"initial.take: {self.take} needs the training state, but {_name(self.checkpoint)} has only weights: "
                "set keep_training_state to end in the step that trains it, or take weights"
            )
        if self.take == "run" and steps <= state_step:
            raise StageError(
                f"steps {steps} counts from the beginning of the training that is continued, of which "
                f"{_name(self.checkpoint)} has {state_step} steps: set steps to more than {state_step}"
            )


def _name(checkpoint: object) -> str:
    return checkpoint.step if isinstance(checkpoint, Edge) else "the checkpoint"
