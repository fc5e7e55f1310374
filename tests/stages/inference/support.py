"""What the serving tests share: a tokenizer, a batch without a model, and an application on a real server."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from stages.inference.engine import Engine
from stages.inference.metrics import Metrics
from stages.inference.text import Vocabulary
from stages.serving.http import Arguments, Service

END = 2
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def byte_level_tokenizer(
    text: Sequence[str] = ("hello world, héllo wörld " * 20, "日本語のテキスト " * 9),
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


class ScriptedBatch:
    """Logits are a hash of the whole sequence. `gate`, when cleared, holds every step up; `ending` ends sequences."""

    def __init__(self, vocabulary: int, slots: int = 4, ending: bool = False) -> None:
        self.slots = slots
        self.vocabulary = vocabulary
        self.ending = ending
        self.gate = threading.Event()
        self.gate.set()
        self.sequences: dict[int, list[int]] = {}
        self.widths: list[int] = []  # how many sequences each step held
        self.reads: list[int] = []  # how many tokens each piece of a prompt held
        self.fail = False

    def read(self, slot: int, tokens: Sequence[int], *, every: bool) -> Tensor:
        self._wait()
        self.reads.append(len(tokens))
        rows = []
        for token in tokens:
            self.sequences.setdefault(slot, []).append(token)
            rows.append(self._logits(slot))
        return torch.stack(rows if every else rows[-1:])

    def step(self, tokens: dict[int, int]) -> Tensor:
        self._wait()
        self.widths.append(len(tokens))
        for slot, token in tokens.items():
            self.sequences[slot].append(token)
        return torch.stack([self._logits(slot) for slot in tokens])

    def release(self, slot: int) -> None:
        self.sequences.pop(slot, None)

    def _wait(self) -> None:
        self.gate.wait(20)
        if self.fail:
            raise RuntimeError("scripted failure")

    def _logits(self, slot: int) -> Tensor:
        seed = hashlib.sha256(str(self.sequences[slot]).encode()).digest()
        logits = torch.randn(self.vocabulary, generator=torch.Generator().manual_seed(int.from_bytes(seed[:7])))
        if not self.ending:
            logits[END] = -1e9
        return logits


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
    slots: int = 4, *, ending: bool = False, context_length: int = 64, **settings: Any
) -> tuple[Service, ScriptedBatch]:
    vocabulary = Vocabulary(byte_level_tokenizer())
    arguments = Arguments(model="unused", model_name="tiny", **settings)
    batch, metrics = ScriptedBatch(len(vocabulary), slots, ending), Metrics("tiny")
    engine = Engine(batch, vocabulary.table, end_of_sequence=END, metrics=metrics, max_waiting=arguments.max_waiting)
    return Service(arguments, engine, vocabulary, metrics, context_length, beginning=END), batch
