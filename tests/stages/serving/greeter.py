"""A user-defined artifact with a plain ASGI application, which the tests deploy in addition to a language model."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base import Application, ArtifactError, Context, ExampleRequest, Resources, Servable, Stage

Message = dict[str, Any]
Asgi = Callable[[Mapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]


@dataclass(frozen=True)
class Greeter(Servable):
    """The word of the greeting."""

    @property
    def word(self) -> str:
        return (self.path / "word.txt").read_text()

    def check(self) -> None:
        if not (self.path / "word.txt").is_file():
            raise ArtifactError(f"{self.path} has no word.txt")

    def application(self) -> Application:
        return Application(
            "greeter",
            f"{__name__}:create",
            {"path": str(self.path.absolute())},
            max_ongoing_requests=3,
            resources=Resources(memory_bytes=1 << 20),
        )

    def examples(self) -> Sequence[ExampleRequest]:
        def greets(answer: bytes) -> None:
            if json.loads(answer) != {"text": f"{self.word}, Ada"}:
                raise ValueError("it does not greet Ada")

        return [
            ExampleRequest("POST", "/greet", {"name": "Ada"}, check=greets),
            ExampleRequest("POST", "/greet", {"nome": "Ada"}, status=400),
            ExampleRequest("GET", "/nothing", status=404),
        ]


class MakeGreeter(Stage):
    """Produces a Greeter."""

    word: str = "hello"

    def run(self, ctx: Context) -> Greeter:
        (ctx.out / "word.txt").write_text(self.word)
        return Greeter(ctx.out)


def create(arguments: Mapping[str, Any]) -> Asgi:
    """POST /greet {"name": NAME} is answered with {"text": "WORD, NAME"}."""
    word = (Path(arguments["path"]) / "word.txt").read_text()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        status, answer = 404, {"error": "no such path"}
        if scope["path"].endswith("/greet"):
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            name = json.loads(body).get("name")
            status, answer = (200, {"text": f"{word}, {name}"}) if name else (400, {"error": "name: missing"})
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return application
