"""Trains a model on seed pairs, with a checkpoint from which a killed run resumes to the same bits.

The order of the pairs and the dropout of a step depend on the seed and the number of the epoch or step alone, so that a
checkpoint needs no state of random generators.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.base import Reporter, StageError, Stopped
from stages.entity_alignment import checkpoint
from stages.entity_alignment.graphs import Pair
from stages.entity_alignment.losses import Losses
from stages.entity_alignment.modalities import Inputs
from stages.entity_alignment.model import AlignmentModel, embedded
from stages.entity_alignment.optimizer import AdamW
from stages.entity_alignment.proposals import Proposals, most_similar, propose
from stages.entity_alignment.ranking import ranks
from stages.entity_alignment.settings import ModelSettings, TrainingSettings
from stages.entity_alignment.sparse import SparseRows

ITERATIVE_RATE = 1 / 5  # of the learning rate
ITERATIVE_STRETCH = 3  # the schedule of iterative training is that much longer than the training
CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_INTERVAL_S = 60.0


@dataclass
class Progress:
    """Everything that changes while training, besides the model and the optimizer."""

    epoch: int = 0  # epochs that are done
    best_mrr: float = -1.0
    best_epoch: int = 0
    promoted: list[tuple[int, int]] = field(default_factory=list)
    proposals: set[tuple[int, int]] = field(default_factory=set)
    losses: list[float] = field(default_factory=list)  # mean of each epoch
    selections: list[tuple[int, float]] = field(default_factory=list)  # (epoch, MRR)


class Trainer:
    """The model, its optimizer and the pairs, from the first epoch to the last."""

    def __init__(
        self, model_settings: ModelSettings, settings: TrainingSettings, pair: Pair, inputs: Inputs, scratch: Path
    ) -> None:
        self._settings, self._inputs, self._scratch = settings, inputs, scratch
        torch.manual_seed(settings.seed)
        self.model = AlignmentModel(model_settings, inputs)
        self._losses = Losses(model_settings, settings, inputs)
        self.progress = Progress()
        self.resumed_at = 0  # epochs that an earlier process did
        self._best: dict[str, Tensor] | None = None
        self._train, self._validation = self._pairs(pair)
        chosen = {"validation": self._validation, "test": torch.from_numpy(pair.links_of("test"))}
        self._selection = chosen.get(settings.selection)
        if self._selection is not None and not len(self._selection):
            raise StageError(
                f"selection: there are no {settings.selection} links; use selection: last, or give some "
                "(validation_share of the pair)"
            )
        self._sides = [torch.arange(one.start, one.stop) for one in (pair.range_of("left"), pair.range_of("right"))]
        self._optimizer, self._step = self._new_optimizer(iterative=False), 0

    @property
    def epochs(self) -> int:
        return self._settings.epochs + self._settings.iterative_epochs

    @property
    def train_pairs(self) -> Tensor:
        """The training pairs, those that were promoted included [n, 2]."""
        promoted = torch.tensor(self.progress.promoted, dtype=torch.int64).reshape(-1, 2)
        return torch.cat([self._train, promoted])

    def run(self, reporter: Reporter) -> None:
        """Train to the end, from the checkpoint if there is one. Leaves the model of the best epoch.

        Raises Stopped after saving, if the run was asked to stop.
        """
        self._resume(reporter)
        saved = time.monotonic()
        for epoch in range(self.progress.epoch, self.epochs):
            if epoch == self._settings.epochs:
                self._begin_iterations()
            self._propose(epoch)
            self._epoch(epoch, reporter)
            last = epoch + 1 in (self.epochs, self._settings.epochs)
            if self._selection is not None and (last or (epoch + 1) % self._settings.select_every == 0):
                self._select(reporter)
            if reporter.stopping():
                self._save()
                raise Stopped
            if time.monotonic() - saved > CHECKPOINT_INTERVAL_S or self.progress.epoch == self.epochs:
                self._save()
                saved = time.monotonic()
        if self._best is not None:
            self.model.load_state_dict(self._best)

    def _epoch(self, epoch: int, reporter: Reporter) -> None:
        pairs = self.train_pairs
        order = torch.from_numpy(np.random.default_rng((self._settings.seed, epoch)).permutation(len(pairs)))
        self.model.train()
        total = 0.0
        for batch in order.split(self._settings.batch_size):
            torch.manual_seed(self._settings.seed * 1_000_003 + epoch * 1009 + self._step)
            loss = self._losses.of(self.model, pairs[batch])
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.clip)
            self._optimizer.step(self._rate(epoch))
            self._step += 1
            total += float(loss.detach()) * len(batch)
        mean = total / len(pairs)
        if not math.isfinite(mean):
            raise StageError(f"the loss of epoch {epoch + 1} is {mean}: lower learning_rate, or look at the features")
        self.progress.epoch = epoch + 1
        self.progress.losses.append(mean)
        reporter.metrics({"loss": mean, "train_pairs": len(pairs)}, epoch + 1)
        reporter.progress(epoch + 1, self.epochs, "epochs", loss=mean)

    def _rate(self, epoch: int) -> float:
        """The learning rate of the next step: a linear warm-up, then half a cosine (Hugging Face's schedule)."""
        s = self._settings
        iterative = epoch >= s.epochs
        steps_an_epoch = math.ceil(len(self._train) / s.batch_size)
        total = steps_an_epoch * (s.iterative_epochs * ITERATIVE_STRETCH if iterative else s.epochs)
        warm_up = int(total * s.warm_up)
        rate = s.learning_rate * (ITERATIVE_RATE if iterative else 1)
        if self._step < warm_up:
            return rate * self._step / max(1, warm_up)
        return rate * max(0.0, 0.5 * (1 + math.cos(math.pi * (self._step - warm_up) / max(1, total - warm_up))))

    def _new_optimizer(self, *, iterative: bool) -> AdamW:
        s = self._settings
        decay = max(s.weight_decay, s.iterative_weight_decay) if iterative else s.weight_decay
        return AdamW((one for one in self.model.parameters() if one.requires_grad), decay)

    def _begin_iterations(self) -> None:
        """From the best weights so far, with a fresh optimizer and schedule."""
        if self._best is not None:
            self.model.load_state_dict(self._best)
        self._optimizer, self._step = self._new_optimizer(iterative=True), 0

    def _propose(self, epoch: int) -> None:
        """In iterative training, every few epochs: propose pairs, and from time to time promote those that survived."""
        number, rest = divmod(epoch - self._settings.epochs + 1, self._settings.propose_every)
        if epoch < self._settings.epochs or rest:
            return
        paired = torch.cat([self.train_pairs, self._validation])
        free = [side[~torch.isin(side, paired[:, column])] for column, side in enumerate(self._sides)]
        if not all(len(one) for one in free):
            return
        left, right = (embedded(self.model, self._inputs, one)[0] for one in free)
        proposals = Proposals(self.progress.proposals)
        proposals.update(number, propose(left, right, *free))
        self.progress.promoted += proposals.promoted(number)
        self.progress.proposals = proposals.pairs

    def _select(self, reporter: Reporter) -> None:
        """Keep the weights if they are the best so far on the links for selection."""
        assert self._selection is not None
        left, right = (embedded(self.model, self._inputs, self._selection[:, side])[0] for side in (0, 1))
        found = ranks(left.numpy(), right.numpy(), self._settings.csls_neighbours)
        mrr = float((1 / found.forward).mean())
        self.progress.selections.append((self.progress.epoch, mrr))
        reporter.metrics({f"{self._settings.selection}_mrr": mrr}, self.progress.epoch)
        if mrr > self.progress.best_mrr:
            self.progress.best_mrr, self.progress.best_epoch = mrr, self.progress.epoch
            self._best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _pairs(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """The training and the validation pairs: links, or found from one modality alone."""
        s = self._settings
        if s.unsupervised is None:
            return torch.from_numpy(pair.links_of("train")), torch.from_numpy(pair.links_of("validation"))
        rows = self._inputs.features.get(s.unsupervised)
        if rows is None:
            raise StageError(f"unsupervised: {s.unsupervised} is not a modality of this alignment")
        vectors = rows.places.matrix(rows.values).to_dense() if isinstance(rows, SparseRows) else rows
        middle = len(pair.entities[0])
        found = torch.tensor(most_similar(vectors[:middle], vectors[middle:], s.unsupervised_seeds), dtype=torch.int64)
        found[:, 1] += middle
        order = torch.from_numpy(np.random.default_rng(s.seed).permutation(len(found)))
        validation = len(found) // 10
        return found[order[validation:]], found[order[:validation]]

    def _save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state(),
            "best": self._best,
            "step": self._step,
            "progress": {**vars(self.progress), "proposals": sorted(self.progress.proposals)},
            "replay": None if self._losses.replay is None else vars(self._losses.replay),
        }
        checkpoint.save(self._scratch / CHECKPOINT, state)

    def _resume(self, reporter: Reporter) -> None:
        """Go on from the checkpoint if there is one; from the beginning if it is damaged, which costs time only."""
        path = self._scratch / CHECKPOINT
        if not path.exists():
            return
        try:
            state = checkpoint.load(path)
        except StageError as error:
            reporter.note(f"{error}; training starts from the beginning")
            return
        self.model.load_state_dict(state["model"])
        self.progress = Progress(**state["progress"])
        self.resumed_at = self.progress.epoch
        self.progress.proposals = {(int(a), int(b)) for a, b in self.progress.proposals}
        self.progress.promoted = [(int(a), int(b)) for a, b in self.progress.promoted]
        self.progress.selections = [(int(epoch), float(mrr)) for epoch, mrr in self.progress.selections]
        self._optimizer = self._new_optimizer(iterative=self.progress.epoch > self._settings.epochs)
        self._optimizer.restore(state["optimizer"])
        self._best, self._step = state["best"], state["step"]
        if self._losses.replay is not None:
            vars(self._losses.replay).update(state["replay"])
