"""The HTTP application around an engine: OpenAI's completions API, the list of models, health and metrics.

`create` is the factory that a server calls in each replica. Whatever a client sends is answered with a 4xx and a
reason; a client that goes away takes its sequences with it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from stages.base import Config
from stages.inference.engine import ClosedError, Engine, Event, OverloadedError
from stages.inference.metrics import CONTENT_TYPE, Metrics
from stages.inference.text import Vocabulary
from stages.serving.protocol import (
    ERROR_SCHEMA,
    BadRequestError,
    Choice,
    CompletionRequest,
    envelope,
    error_body,
    parse,
    request_schema,
    usage,
)

# Texts longer than this are tokenized beside the event loop, so that they do not hold up the streams of others.
_LONG_TEXT_CHARACTERS = 4096


class Arguments(Config):
    """What `create` is called with. JSON values, as a Serve config holds them."""

    model: str  # path of a Checkpoint
    model_name: str = "bloomline"  # what clients call it
    max_running: PositiveInt = 8  # sequences in the running batch
    max_waiting: NonNegativeInt = 64  # more than that are refused with 429
    prefill_chunk: PositiveInt = 256  # prompt tokens read between two steps of the running batch
    threads: PositiveInt | None = None  # of torch within one operation; null: torch's choice
    max_body_bytes: PositiveInt = 1 << 20
    body_timeout_s: PositiveFloat = 30.0  # to receive the whole body of a request


def create(arguments: Mapping[str, Any]) -> FastAPI:
    """The application that serves the Checkpoint of `arguments` (see `Arguments`). Loads the model."""
    from stages.artifacts.checkpoint import Checkpoint
    from stages.inference.batch import DecoderBatch

    settings = Arguments.model_validate(dict(arguments))
    checkpoint = Checkpoint(Path(settings.model))
    checkpoint.check()
    batch = DecoderBatch(checkpoint.load(), slots=settings.max_running)
    batch.warm_up()
    vocabulary = Vocabulary(checkpoint.tokenizer())
    metrics = Metrics(settings.model_name)
    engine = Engine(
        batch,
        vocabulary.table,
        end_of_sequence=checkpoint.config.eos_token_id,
        metrics=metrics,
        max_waiting=settings.max_waiting,
        prefill_chunk=settings.prefill_chunk,
        threads=settings.threads,
    )
    # In training a text follows the end of another one: so does what is written to an empty prompt.
    beginning = checkpoint.config.eos_token_id
    service = Service(settings, engine, vocabulary, metrics, checkpoint.config.context_length, beginning)
    return application(service)


class Service:
    """One model behind its engine: what the routes share."""

    def __init__(
        self,
        settings: Arguments,
        engine: Engine,
        vocabulary: Vocabulary,
        metrics: Metrics,
        context_length: int,
        beginning: int,  # the token that an empty prompt stands for
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.vocabulary = vocabulary
        self.metrics = metrics
        self.context_length = context_length
        self.beginning = beginning

    async def body(self, request: Request) -> bytes:
        """The body of a request, bounded in size and time. Raises BadRequestError."""
        limit = self.settings.max_body_bytes
        too_large = BadRequestError(f"the body is larger than {limit} bytes", status=413)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise BadRequestError("expected a body of content-type application/json", status=415)
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise BadRequestError("the body did not arrive in time", status=408) from None
        return bytes(body)

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
                f"{len(prompts)} prompts times n={n} are more than the {self.engine.capacity} sequences "
                "that this server runs and queues together: send fewer",
                parameter="prompt",
            )
        choices: list[Choice] = []
        for prompt in prompts:
            tokens = await self._tokens(prompt, request)
            text = prompt if isinstance(prompt, str) else self.vocabulary.decode(tokens)
            choices += [
                Choice(len(choices) + index, self.vocabulary, request, tuple(tokens), text) for index in range(n)
            ]
        return choices

    async def _tokens(self, prompt: str | list[int], request: CompletionRequest) -> list[int]:
        longest = self.context_length - request.max_tokens

        def too_long(size: str) -> BadRequestError:
            return BadRequestError(
                f"the prompt ({size}) and max_tokens ({request.max_tokens}) go beyond the model's context "
                f"of {self.context_length} tokens",
                parameter="prompt",
                code="context_length_exceeded",
            )

        if isinstance(prompt, list):
            tokens = prompt
            if max(tokens) >= len(self.vocabulary):
                raise BadRequestError(
                    f"token {max(tokens)} does not exist: the vocabulary has {len(self.vocabulary)}", parameter="prompt"
                )
        else:
            if len(prompt) > max(0, longest) * self.vocabulary.longest_token:
                raise too_long(f"{len(prompt)} characters")
            encode = self.vocabulary.encode
            slow = len(prompt) > _LONG_TEXT_CHARACTERS
            tokens = (await asyncio.to_thread(encode, prompt) if slow else encode(prompt)) or [self.beginning]
        if len(tokens) > longest:
            raise too_long(f"{len(tokens)} tokens")
        return tokens


class Run:
    """The generations of one request, and their events as they come."""

    def __init__(self, service: Service, request: CompletionRequest, choices: list[Choice]) -> None:
        self.service = service
        self.request = request
        self.choices = choices
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[Choice, Event]] = asyncio.Queue()
        self._generations = service.engine.submit(
            [(choice.prompt, request.sampling(choice.index % request.n), self._deliver(choice)) for choice in choices]
        )

    def close(self) -> None:
        self.service.engine.cancel(self._generations)

    async def batches(self) -> AsyncIterator[list[tuple[Choice, Event]]]:
        """Events, as many at a time as have come, until every choice has ended. Raises GenerationFailedError."""
        left = len(self.choices)
        while left:
            batch = [await self._events.get()]
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
            except RuntimeError:  # the loop is closed: the server is gone, and the client with it
                self.close()

        return deliver


class GenerationFailedError(Exception):
    """A generation ended without a result: `error` or `cancelled`."""


class EventStream(StreamingResponse):
    """Server-sent events; `close` is called when the stream ends, in whatever way."""

    def __init__(self, content: AsyncIterator[str], close: Callable[[], None]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


def application(service: Service) -> FastAPI:
    """The routes of a service. Shutting the application down closes the engine."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.engine.close)

    refusal = {
        "description": "Why the request was refused, or failed",
        "content": {"application/json": {"schema": ERROR_SCHEMA}},
    }
    app = FastAPI(
        title="bloomline", lifespan=lifespan, docs_url=None, redoc_url=None, responses={"4XX": refusal, "5XX": refusal}
    )
    model = {
        "id": service.settings.model_name,
        "object": "model",
        "created": 0,
        "owned_by": "bloomline",
        "max_model_len": service.context_length,
    }

    def refuse(
        message: str,
        status: int,
        parameter: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JSONResponse:
        service.metrics.rejected(status)
        if status in (429, 503):
            headers = {"retry-after": "1"}
        return JSONResponse(error_body(message, status, parameter, code), status, headers)

    @app.exception_handler(BadRequestError)
    async def bad_request(_: Request, error: BadRequestError) -> Response:
        return refuse(error.message, error.status, error.parameter, error.code)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        said = f"{request.method} {request.url.path}: {error.detail}"[:500]
        return refuse(said, error.status_code, headers=error.headers)  # among them Allow, of a method that is not

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, __: OverloadedError) -> Response:
        return refuse(f"{service.engine.capacity} sequences are running and waiting: try again soon", 429)

    @app.exception_handler(ClosedError)
    async def closed(_: Request, __: ClosedError) -> Response:
        return refuse("the server is shutting down" if service.engine.alive else "the engine has stopped", 503)

    @app.exception_handler(GenerationFailedError)
    async def failed(_: Request, __: GenerationFailedError) -> Response:
        return refuse("the generation failed; the server's log says why", 500)

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    body = {"required": True, "content": {"application/json": {"schema": request_schema()}}}
    streamed = {200: {"description": "The completion; its parts, if streamed", "content": {"text/event-stream": {}}}}

    @app.post("/v1/completions", openapi_extra={"requestBody": body}, responses=streamed)
    async def completions(request: Request) -> Response:
        completion = parse(await service.body(request))
        run = Run(service, completion, await service.choices(completion))
        head = envelope(service.settings.model_name)
        if completion.stream:
            return EventStream(_stream(run, head), run.close)
        try:
            answer = await _unless_disconnected(request, _collect(run))
        finally:
            run.close()
        return JSONResponse(head | answer)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        if name != model["id"]:
            raise BadRequestError(f"the model {name[:200]!r} does not exist", status=404, code="model_not_found")
        return model

    @app.get("/health")
    async def health() -> Response:
        if not service.engine.alive:
            return JSONResponse(error_body("the engine has stopped", 503), 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})

    return app


async def _collect(run: Run) -> dict[str, Any]:
    async for batch in run.batches():
        for choice, event in batch:
            choice.take(event)
    return {"choices": [choice.whole() for choice in run.choices], "usage": run.usage()}


async def _stream(run: Run, head: Mapping[str, Any]) -> AsyncIterator[str]:
    def data(value: Mapping[str, Any]) -> str:
        return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"

    try:
        async for batch in run.batches():
            yield "".join(data({**head, "choices": [choice.take(event)]}) for choice, event in batch)
        if run.request.stream_options.include_usage:
            yield data({**head, "choices": [], "usage": run.usage()})
    except GenerationFailedError:
        yield data(error_body("the generation failed; the server's log says why", 500))
    yield "data: [DONE]\n\n"


async def _unless_disconnected(request: Request, work: Any) -> Any:
    """The result of `work`. Cancels it, and raises ClientDisconnect, when the client goes away before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
