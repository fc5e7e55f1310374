"""Completions of the prompts of a table: how a Checkpoint answers in MLflow's pyfunc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.artifacts.checkpoint import Checkpoint
from stages.base import StageError
from stages.inference.generate import generate
from stages.inference.sampling import Sampling
from stages.predictor import Predict, Row

HIGHEST_TEMPERATURE = 100


def create(checkpoint: Checkpoint) -> Predict:
    """Load the model. The function that is returned completes `prompt` of every row as `text`.

    Parameters: max_tokens, temperature (0: always the most likely token). It raises StageError for values out of range
    and for a prompt that does not fit the model's context.
    """
    model, tokenizer = checkpoint.load(), checkpoint.tokenizer()

    def predict(rows: Sequence[Row], parameters: Mapping[str, Any]) -> Sequence[Row]:
        max_tokens, temperature = parameters["max_tokens"], parameters["temperature"]
        if max_tokens < 1:
            raise StageError(f"max_tokens is {max_tokens}; expected a number of at least 1")
        if not 0 <= temperature <= HIGHEST_TEMPERATURE:
            raise StageError(f"temperature is {temperature}; expected a number from 0 to {HIGHEST_TEMPERATURE}")
        sampling = Sampling(max_tokens=int(max_tokens), temperature=float(temperature))
        try:
            return [{"text": one.text} for one in generate(model, [row["prompt"] for row in rows], tokenizer, sampling)]
        except ValueError as error:
            raise StageError(str(error)) from None

    return predict
