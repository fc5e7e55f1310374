"""A small model and task for tests of training, and processes that run its ranks."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stages.base import Rank
from stages.training.recipe import Execution, Recipe
from stages.training.task import Loss, LossFunction, Task, TrainingSpec

VOCABULARY = 37


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.down(functional.gelu(self.up(self.norm(hidden))))
        return hidden + added


class Toy(nn.Module):
    """Predicts a token from the previous one; the embedding is tied to the head, as in the decoder."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        normalised: torch.Tensor = self.norm(hidden)
        return normalised @ self.embedding.weight.T


def sample(number: int, length: int) -> torch.Tensor:
    """A sequence that can be learnt: each token is a function of the previous one, with some noise."""
    generator = torch.Generator().manual_seed(number)
    noise = torch.randint(0, VOCABULARY, (length + 1,), generator=generator)
    tokens = noise.clone()
    for position in range(1, length + 1):
        if noise[position] % 4:
            tokens[position] = (3 * tokens[position - 1] + 1) % VOCABULARY
    return tokens


def build(
    recipe: Recipe, width: int = 17, blocks: int = 2, poisoned: tuple[int, ...] = (), loud: tuple[int, ...] = ()
) -> Task:
    """The toy task. `poisoned`: sample numbers whose loss is NaN; `loud`: those whose loss is 100 times too large."""
    torch.manual_seed(recipe.seed)
    model = Toy(width, blocks)
    operations = 6.0 * sum(parameter.numel() for parameter in model.parameters())
    loss, validation_loss = losses(recipe, poisoned, loud)
    state = {name: value.flatten() for name, value in model.state_dict().items()}
    model.to("meta")
    return Task(
        model,
        lambda name, start, stop: state[name][start:stop],
        list(model.blocks),
        loss,
        validation_loss,
        validation_samples=10,
        metric_names=("zeros",),
        group_names=("even", "odd"),
        flops_per_target=operations,
        stem=[model.embedding],
        head=[model.embedding, model.norm],
    )


def losses(
    recipe: Recipe, poisoned: tuple[int, ...] = (), loud: tuple[int, ...] = ()
) -> tuple[LossFunction, LossFunction]:
    """The loss functions of training and of validation."""

    def loss(model: nn.Module, numbers: Any, offset: int = 0) -> Loss:
        tokens = torch.stack([sample(number + offset, recipe.sequence_length) for number in numbers])
        logits = model(tokens[:, :-1]).float()
        targets = tokens[:, 1:].reshape(-1)
        total = functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum")
        if any(number in poisoned for number in numbers):
            total = total * float("nan")
        if any(number in loud for number in numbers):
            total = total * 100
        even = targets % 2 == 0
        by_target = functional.cross_entropy(logits.flatten(0, 1).detach(), targets, reduction="none").double()
        groups = torch.stack([
            torch.stack([by_target[even].sum(), by_target[~even].sum()]), torch.stack([even.sum(), (~even).sum()])
        ])  # fmt: skip
        return Loss(total, targets.numel(), metrics=torch.tensor([float((targets == 0).sum())]), groups=groups)

    def validation_loss(model: nn.Module, numbers: Any) -> Loss:
        return loss(model, numbers, offset=1_000_000)

    return loss, validation_loss


WHOLE = Execution(zero_stage=0)
RECIPE = Recipe(
    steps=4,
    global_batch_size=16,
    micro_batch_size=2,
    sequence_length=8,
    learning_rate=0.01,
    warmup_steps=1,
    validation_every=2,
    validation_samples=10,
)


def spec(scratch: Path, recipe: Recipe = RECIPE, execution: Execution = WHOLE, **arguments: Any) -> TrainingSpec:
    return TrainingSpec(partial(build, **arguments), "toy", recipe, execution, str(scratch))


@dataclass
class RecordingReporter:
    """A Reporter that records what is reported."""

    points: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stop_after: int | None = None

    def progress(self, done: float, total: float, unit: str = "", /, **info: float | str) -> None:
        pass

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.points.append((step, dict(values)))

    def note(self, message: str) -> None:
        self.notes.append(message)

    def stopping(self) -> bool:
        steps = [step for step, values in self.points if "loss" in values]
        return self.stop_after is not None and len(steps) + 1 >= self.stop_after

    def curve(self, name: str) -> list[float]:
        return [values[name] for _, values in self.points if name in values]


def new_rendezvous() -> str:
    """A new rendezvous for each gang: a file, because a port that is free now may be taken a moment later."""
    return f"file://localhost{tempfile.mkdtemp()}/ranks"


def single_rank(reporter: RecordingReporter | None = None) -> Rank:
    return Rank(0, 1, "", reporter or RecordingReporter())


def processes() -> Any:
    """A context whose processes are forked from one that has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stages.training.loop", "tests.stages.training.toy", "torch.utils.checkpoint"])
    return context


class Workers:
    """Processes that are reused: each call runs a gang on the first `ranks` of them."""

    def __init__(self, count: int) -> None:
        context = processes()
        self.pipes, self.processes = [], []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def gang(self, function: Any, *arguments: Any, ranks: int) -> list[tuple[Any, RecordingReporter]]:
        """Run `function(rank, *arguments)` on every rank. Each rank's result or exception, and its reports."""
        rendezvous = new_rendezvous()
        for index in range(ranks):
            self.pipes[index].send((function, index, ranks, rendezvous, arguments))
        return [self.pipes[index].recv() for index in range(ranks)]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _serve(pipe: Any) -> None:
    torch.set_num_threads(1)
    while True:
        function, index, ranks, rendezvous, arguments = pipe.recv()
        reporter = RecordingReporter()
        result: Any
        try:
            result = function(Rank(index, ranks, rendezvous, reporter), *arguments)
        except Exception as error:
            result = error
        pipe.send((result, reporter))
