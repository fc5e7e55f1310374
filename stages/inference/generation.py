"""The state of one sequence from its prompt to its end, and the events that it delivers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from stages.inference.sampling import Sampling, TokenLogprobs
from stages.inference.text import TextStream

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Event:
    """One token of a sequence, or its end, or both."""

    text: str = ""  # complete characters that can be shown now
    token: int | None = None
    is_end: bool = False  # the token ends the sequence and is not part of its text
    offset: int = 0  # characters of the completion before this token
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None  # once, with the first event, if asked for
    finish_reason: FinishReason | None = None  # set on the last event only


Deliver = Callable[[Event], None]


@dataclass(eq=False)
class Request:
    """Sequences that were submitted together. They share a client, and with it their turn in the queue."""

    name: str  # for the log
    arrived: float  # by `time.monotonic`
    running: int = 0  # sequences in the batch


@dataclass(eq=False)
class Prompt:
    """The tokens of a prompt, and what the model said when it read them. Sequences that continue it share it."""

    tokens: tuple[int, ...]  # at least one
    logits: Tensor | None = None  # after the last token, [1, vocabulary], once one sequence has read all of them
    logprobs: list[TokenLogprobs] = field(default_factory=list)  # of the tokens that were read, if asked for


@dataclass(eq=False)
class Generation:
    """The state of one sequence. Only the engine changes it."""

    request: Request
    prompt: Prompt
    sampling: Sampling
    deliver: Deliver
    stream: TextStream
    submitted: float = field(default_factory=time.monotonic)
    latest: float = 0.0  # when the latest token was delivered
    slot: int = -1
    read: int = 0  # tokens of the prompt that are in the slot
    generated: int = 0
    pending: int | None = None  # the latest token, which the model has not read yet
    cancelled: bool = False
    delivered: bool = False  # whether any event was

    def __post_init__(self) -> None:
        self.generator = self.sampling.generator()

    @property
    def has_read(self) -> bool:
        """Whether the whole prompt is in the slot."""
        return self.read == len(self.prompt.tokens)
