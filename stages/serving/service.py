"""A served model behind its engine: from a request's parameters to running generations and their events."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.document_start import document_start
from stages.artifacts.encoding import EncodingError
from stages.base import Config
from stages.inference.batch import DecoderBatch
from stages.inference.engine import Engine
from stages.inference.generation import Event
from stages.inference.text import Vocabulary
from stages.serving.answer import Choice, usage
from stages.serving.errors import BadRequestError, DeadlineError, GenerationFailedError
from stages.serving.metrics import Metrics
from stages.serving.request import DEFAULT_TOKENS, CompletionRequest

REPLICA_VARIABLE = "BLOOMLINE_REPLICA"  # the name of a replica among several, which its metrics carry

# Longer texts are tokenized in a thread, so that they do not stall the event loop and the streams of other clients.
_LONG_TEXT_CHARACTERS = 4096


class Arguments(Config):
    """The arguments of `stages.serving.http:create`. JSON values, as a Serve config contains them."""

    model: str  # path of a Checkpoint
    model_name: str = "bloomline"  # the name by which clients address it
    max_running: PositiveInt = 8  # sequences in the running batch
    max_waiting: NonNegativeInt = 64  # requests in the queue; those beyond it are refused with 429
    prefill_chunk: PositiveInt = 256  # prompt tokens read between two steps of the running batch
    threads: PositiveInt | None = None  # torch's threads within one operation; null: torch's default
    max_body_bytes: PositiveInt = 1 << 20
    body_timeout_s: PositiveFloat = 30.0  # to receive the whole body of a request
    request_timeout_s: PositiveFloat = 600.0  # from the arrival of a request to the end of its answer


class Service:
    """One model with its engine, its vocabulary and its metrics.

    document_start: the tokens before the first one of a text. end_of_text: the token that ends a document.
    """

    def __init__(
        self,
        settings: Arguments,
        engine: Engine,
        vocabulary: Vocabulary,
        metrics: Metrics,
        *,
        context_length: int,
        document_start: tuple[int, ...],
        end_of_text: int,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.vocabulary = vocabulary
        self.metrics = metrics
        self.context_length = context_length
        self._document_start = document_start
        self._end_of_text = end_of_text

    @classmethod
    def load(cls, settings: Arguments) -> Service:
        """Load the Checkpoint that the settings name and start its engine. Raises ArtifactError."""
        checkpoint = Checkpoint(Path(settings.model))
        checkpoint.check()
        config = checkpoint.config
        batch = DecoderBatch(checkpoint.load(), slots=settings.max_running)
        batch.warm_up()
        tokenizer = checkpoint.tokenizer()
        vocabulary = Vocabulary(tokenizer)
        metrics = Metrics(settings.model_name, os.environ.get(REPLICA_VARIABLE, "0"))
        engine = Engine(
            batch,
            vocabulary.table,
            end_tokens=config.end_tokens,
            observer=metrics,
            max_waiting=settings.max_waiting,
            prefill_chunk=settings.prefill_chunk,
            threads=settings.threads,
        )
        return cls(
            settings,
            engine,
            vocabulary,
            metrics,
            context_length=config.context_length,
            document_start=document_start(config, tokenizer),
            end_of_text=config.eos_token_id,
        )

    async def choices(self, request: CompletionRequest) -> list[Choice]:
        """The choices to generate for a request, in the order of the answer. Raises BadRequestError."""
        if request.model not in (None, self.settings.model_name):
            raise BadRequestError(
                f"the model {request.model[:200]!r} does not exist; this server has {self.settings.model_name!r}",
                status=404,
                parameter="model",
                code="model_not_found",
            )
        n, prompts = request.n, request.prompts
        if len(prompts) * n > self.engine.capacity:
            raise BadRequestError(
                f"{len(prompts)} prompts with n={n} are more than the {self.engine.capacity} sequences "
                "that this server can run and queue: send fewer in one request",
                parameter="prompt",
            )
        choices: list[Choice] = []
        for prompt in prompts:
            if isinstance(prompt, str):
                text, start = prompt, self._document_start
                # A model needs a token to read: it predicts the first one of a text from the end of the one before.
                if not prompt and not start:
                    start = (self._end_of_text,)
                tokens = (*start, *await self._encode(prompt, request.max_tokens))
            else:
                tokens, start = tuple(prompt), ()
                self._refuse_unknown(tokens)
                text = self.vocabulary.decode(tokens)
            left = self.context_length - len(tokens)
            if left < (1 if request.max_tokens is None else request.max_tokens):
                raise self._too_long(f"{len(tokens)} tokens", request.max_tokens)
            limit = min(DEFAULT_TOKENS, left) if request.max_tokens is None else request.max_tokens
            choices += [
                Choice(len(choices) + index, self.vocabulary, request, tokens, text, limit, len(start))
                for index in range(n)
            ]
        return choices

    async def _encode(self, text: str, max_tokens: int | None) -> list[int]:
        if len(text) > max(0, self.context_length - (max_tokens or 0)) * self.vocabulary.longest_token:
            raise self._too_long(f"{len(text)} characters", max_tokens)
        encode = self.vocabulary.encode
        try:
            return await asyncio.to_thread(encode, text) if len(text) > _LONG_TEXT_CHARACTERS else encode(text)
        except EncodingError as error:
            raise BadRequestError(f"the prompt cannot be read: {error}", parameter="prompt") from None

    def _refuse_unknown(self, tokens: tuple[int, ...]) -> None:
        if max(tokens) >= len(self.vocabulary):
            raise BadRequestError(
                f"token {max(tokens)} does not exist: the vocabulary has {len(self.vocabulary)} tokens",
                parameter="prompt",
            )

    def _too_long(self, size: str, max_tokens: int | None) -> BadRequestError:
        if max_tokens is None:
            what = f"the prompt ({size}) leaves no room for a completion in the model's context"
        else:
            what = f"the prompt ({size}) and max_tokens ({max_tokens}) exceed the model's context"
        return BadRequestError(
            f"{what} of {self.context_length} tokens",
            parameter="prompt",
            code="context_length_exceeded",
        )


class Run:
    """The generations of one request, and their events as they arrive. Raises what `Engine.submit` raises.

    name: the request's id, for the log. arrived: when it came, by `time.monotonic`.
    """

    def __init__(
        self, service: Service, request: CompletionRequest, choices: list[Choice], name: str, arrived: float
    ) -> None:
        self.service = service
        self._arrived = arrived
        self.request = request
        self.choices = choices
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[Choice, Event]] = asyncio.Queue()
        self._generations = service.engine.submit(
            [
                (choice.prompt, request.sampling(choice.index % request.n, choice.max_tokens), self._deliver(choice))
                for choice in choices
            ],
            name=name,
            arrived=arrived,
        )

    def close(self) -> None:
        """Cancel the generations that have not ended."""
        self.service.engine.cancel(self._generations)

    async def batches(self) -> AsyncIterator[list[tuple[Choice, Event]]]:
        """Lists of the events that have arrived, until every choice has ended.

        Raises GenerationFailedError, and DeadlineError once the request takes longer than `request_timeout_s`.
        """
        left = len(self.choices)
        while left:
            remaining = self._arrived + self.service.settings.request_timeout_s - time.monotonic()
            try:
                batch = [await asyncio.wait_for(self._events.get(), max(0.0, remaining))]
            except TimeoutError:
                raise DeadlineError from None
            while not self._events.empty():
                batch.append(self._events.get_nowait())
            for _, event in batch:
                left -= event.finish_reason is not None
                if event.finish_reason in ("error", "cancelled"):
                    raise GenerationFailedError(event.finish_reason)
            yield batch

    def usage(self) -> Mapping[str, int]:
        return usage([choice.prompt for choice in self.choices[:: self.request.n]], self.choices)

    def _deliver(self, choice: Choice) -> Callable[[Event], None]:
        def deliver(event: Event) -> None:
            try:
                self._loop.call_soon_threadsafe(self._events.put_nowait, (choice, event))
            except RuntimeError:  # the event loop is closed: the server, and with it the client, is gone
                self.close()

        return deliver
