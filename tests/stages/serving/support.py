"""Helpers for the serving tests: an application on a real server, and a service on a scripted batch."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from fastapi import FastAPI

from cluster import inline_serve
from stages.base import Application, Served
from stages.inference.engine import Engine
from stages.inference.text import Vocabulary
from stages.serving.metrics import Metrics
from stages.serving.service import Arguments, Service
from tests.stages.inference.support import END, ScriptedBatch, byte_level_tokenizer
from tests.support import RecordingContext

ServedService = tuple[httpx.Client, Service, ScriptedBatch]


@dataclass
class ServingContext(RecordingContext):
    """A context that serves in another process, without a cluster."""

    def serve(self, application: Application) -> Served:
        return inline_serve.start(application)


def context(directory: Path, kind: type[ServingContext] = ServingContext) -> ServingContext:
    """A context that works below `directory`."""
    made = kind(directory / "out", directory / "scratch")
    made.out.mkdir(parents=True)
    made.scratch.mkdir()
    return made


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application on a real server in a thread of this process; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def scripted_service(
    slots: int = 4, *, ending: bool = False, context_length: int = 64, start: tuple[int, ...] = (END,), **settings: Any
) -> tuple[Service, ScriptedBatch]:
    vocabulary = Vocabulary(byte_level_tokenizer())
    arguments = Arguments(model="unused", model_name="tiny", **settings)
    batch, metrics = ScriptedBatch(len(vocabulary), slots, ending), Metrics("tiny")
    engine = Engine(batch, vocabulary.table, end_tokens={END}, observer=metrics, max_waiting=arguments.max_waiting)
    return Service(
        arguments, engine, vocabulary, metrics, context_length=context_length, document_start=start, end_of_text=END
    ), batch


def connect(client: httpx.Client) -> socket.socket:
    url = urlsplit(str(client.base_url))
    return socket.create_connection((url.hostname, url.port), timeout=60)


def request_bytes(body: dict[str, Any], length: int | None = None) -> bytes:
    content = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {length or len(content)}\r\n\r\n".encode() + content
