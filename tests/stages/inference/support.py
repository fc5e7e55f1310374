"""Helpers for the inference tests: a tokenizer, and a batch without a model."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from stages.inference.observer import Observer

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
    """Logits are a hash of the whole sequence. `gate`: while it is cleared, every step waits. `ending`: sequences can
    end."""

    def __init__(self, vocabulary: int, slots: int = 4, ending: bool = False) -> None:
        self.slots = slots
        self.vocabulary = vocabulary
        self.ending = ending
        self.gate = threading.Event()
        self.gate.set()
        self.sequences: dict[int, list[int]] = {}
        self.widths: list[int] = []  # how many sequences each step held
        self.reads: list[int] = []  # how many tokens each piece of a prompt held
        self.read_after: list[int] = []  # and after how many steps it was read
        self.fail = False
        self.poison: int | None = None  # a token with which every call fails

    def read(self, slot: int, tokens: Sequence[int], *, every: bool) -> Tensor:
        self._wait(tokens)
        self.reads.append(len(tokens))
        self.read_after.append(len(self.widths))
        rows = []
        for token in tokens:
            self.sequences.setdefault(slot, []).append(token)
            rows.append(self._logits(slot))
        return torch.stack(rows if every else rows[-1:])

    def reads_between_steps(self) -> list[list[int]]:
        """The lengths of the pieces that were read between two steps."""
        pairs = list(zip(self.read_after, self.reads, strict=True))
        return [[length for place, length in pairs if place == step] for step in {place for place, _ in pairs}]

    def step(self, tokens: dict[int, int]) -> Tensor:
        self._wait(tokens.values())
        self.widths.append(len(tokens))
        for slot, token in tokens.items():
            self.sequences[slot].append(token)
        return torch.stack([self._logits(slot) for slot in tokens])

    def fork(self, source: int, target: int, length: int) -> None:
        self.sequences[target] = self.sequences[source][:length]

    def release(self, slot: int) -> None:
        self.sequences.pop(slot, None)

    def _wait(self, tokens: Collection[int]) -> None:
        self.gate.wait(20)
        if self.fail or self.poison in tokens:
            raise RuntimeError("scripted failure")

    def _logits(self, slot: int) -> Tensor:
        seed = hashlib.sha256(str(self.sequences[slot]).encode()).digest()
        logits = torch.randn(self.vocabulary, generator=torch.Generator().manual_seed(int.from_bytes(seed[:7])))
        if not self.ending:
            logits[END] = -1e9
        return logits


class Recorder(Observer):
    """Keeps every report of an engine: the name of the method and its arguments."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, tuple[float | str, ...]]] = []

    def of(self, name: str) -> list[tuple[float | str, ...]]:
        return [values for found, values in self.reports if found == name]

    def load(self, running: int, waiting: int, slots: int) -> None:
        self.reports.append(("load", (running, waiting, slots)))

    def queued(self, seconds: float) -> None:
        self.reports.append(("queued", (seconds,)))

    def prompt_tokens(self, count: int) -> None:
        self.reports.append(("prompt_tokens", (count,)))

    def first_token(self, seconds: float) -> None:
        self.reports.append(("first_token", (seconds,)))

    def next_token(self, seconds: float) -> None:
        self.reports.append(("next_token", (seconds,)))

    def finished(self, reason: str, tokens: int, seconds: float) -> None:
        self.reports.append(("finished", (reason, tokens, seconds)))
