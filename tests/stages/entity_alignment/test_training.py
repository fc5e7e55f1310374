"""Training: resuming after a kill, iterative and unsupervised seeds, selection."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.base import Reporter, StageError, Stopped
from stages.entity_alignment import checkpoint
from stages.entity_alignment.align import AlignEntities
from stages.entity_alignment.alignment import EntityAlignment
from stages.entity_alignment.graph_pair import GraphPair
from stages.entity_alignment.make_pair import MakeGraphPair
from stages.entity_alignment.proposals import Proposals, most_similar
from stages.entity_alignment.training import CHECKPOINT, Trainer
from tests.stages.entity_alignment.graph_files import simulated
from tests.support import RecordingContext, run_stage


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> GraphPair:
    return simulated(tmp_path_factory.mktemp("pair"), image_noise=0.2)


def settings(**changed: Any) -> dict[str, Any]:
    small = {"width": 8, "epochs": 6, "select_every": 2, "learning_rate": 0.02, "batch_size": 8, "intermediate": 8}
    return {"graphs": "pair", **small, **changed}


def align(pair: GraphPair, directory: Path, **changed: Any) -> tuple[EntityAlignment, RecordingContext]:
    return run_stage(AlignEntities.model_validate(settings(**changed)), {"pair": pair}, directory, draw=False)


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.entity_alignment import training
from stages.entity_alignment.align import AlignEntities
from stages.entity_alignment.graph_pair import GraphPair
from tests.support import run_stage

training.CHECKPOINT_INTERVAL_S = 0.0
saved = training.Trainer._save
def save_and_die(trainer):
    saved(trainer)
    if trainer.progress.epoch == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
training.Trainer._save = save_and_die
stage = AlignEntities.model_validate_json(sys.argv[4])
run_stage(stage, {"pair": GraphPair(Path(sys.argv[1]))}, Path(sys.argv[2]), draw=False)
"""


def _timed_runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The seconds of the next training will be in here."""
    run, found = Trainer.run, {"seconds": 0.0}

    def timed(self: Trainer, reporter: Reporter) -> None:
        started = time.monotonic()
        run(self, reporter)
        found["seconds"] = time.monotonic() - started

    monkeypatch.setattr(Trainer, "run", timed)
    return found


def test_a_killed_run_resumes_to_the_same_bits(
    pair: GraphPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = settings(epochs=4, iterative_epochs=6, propose_every=1, replay=True)
    undisturbed, _ = align(pair, tmp_path / "whole", **{name: fields[name] for name in fields if name != "graphs"})
    killed = tmp_path / "killed"
    text = AlignEntities.model_validate(fields).model_dump_json(exclude={"graphs"})[:-1] + ',"graphs":"pair"}'
    for epoch in (2, 7):
        arguments = [sys.executable, "-c", KILLED, str(pair.path), str(killed), str(epoch), text]
        root = Path(__file__).parents[3]
        ended = subprocess.run(arguments, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=False)
        assert ended.returncode == -signal.SIGKILL
    trained = _timed_runs(monkeypatch)
    resumed, context = align(pair, killed, **{name: fields[name] for name in fields if name != "graphs"})
    assert len(context.progressed) == 3, "three of ten epochs remained"
    assert trained["seconds"] / context.last["seconds_an_epoch"] == pytest.approx(3, rel=0.5), "divided by these three"
    for name in ("embeddings.safetensors", "model.safetensors", "alignment.json"):
        assert (resumed.path / name).read_bytes() == (undisturbed.path / name).read_bytes(), name


def test_a_run_that_is_asked_to_stop_saves_and_stops(pair: GraphPair, tmp_path: Path) -> None:
    context = RecordingContext(tmp_path / "out", tmp_path / "scratch", stop=True, draw=False)
    context.out.mkdir()
    context.scratch.mkdir()
    with pytest.raises(Stopped):
        AlignEntities.model_validate(settings()).bind({"pair": pair}).run(context)
    assert checkpoint.load(context.scratch / CHECKPOINT)["progress"]["epoch"] == 1


def test_a_damaged_checkpoint_is_named_and_costs_only_time(pair: GraphPair, tmp_path: Path) -> None:
    fresh, _ = align(pair, tmp_path / "fresh", epochs=2)
    (tmp_path / "again" / "scratch").mkdir(parents=True)
    (tmp_path / "again" / "scratch" / CHECKPOINT).write_bytes(b"\x08" + bytes(100))
    again, context = align(pair, tmp_path / "again", epochs=2)
    assert any("is not a whole checkpoint" in note for note in context.notes)
    assert (again.path / "model.safetensors").read_bytes() == (fresh.path / "model.safetensors").read_bytes()


def test_the_best_epoch_on_the_validation_links_is_kept(pair: GraphPair, tmp_path: Path) -> None:
    alignment, context = align(pair, tmp_path)
    facts = alignment.facts
    assert [epoch for epoch, _ in facts.selections] == [2, 4, 6]
    best = max(mrr for _, mrr in facts.selections)
    assert dict(facts.selections)[facts.best_epoch] == best
    assert context.last["best_validation_mrr"] == pytest.approx(best)


def test_the_validation_links_are_not_trained_on(pair: GraphPair, tmp_path: Path) -> None:
    alignment, _ = align(pair, tmp_path, epochs=1)
    assert alignment.facts.train_pairs == pair.facts.links["train"]


def test_selection_can_be_that_of_the_released_code_or_none(pair: GraphPair, tmp_path: Path) -> None:
    _, context = align(pair, tmp_path / "test", selection="test", epochs=2)
    assert "best_test_mrr" in context.last
    last, _ = align(pair, tmp_path / "last", selection="last", epochs=2)
    assert last.facts.selections == ()
    assert last.facts.best_epoch == 2


def test_selection_needs_links(tmp_path: Path) -> None:
    made = {"kind": "simulated", "entities": 20}
    stage = MakeGraphPair.model_validate({"made": made, "train_share": 0.5, "validation_share": 0})
    without, _ = run_stage(stage, {}, tmp_path / "pair", draw=False)
    with pytest.raises(StageError, match="selection: there are no validation links; use selection: last"):
        align(without, tmp_path / "run")


def test_iterations_add_pairs_that_survived(pair: GraphPair, tmp_path: Path) -> None:
    alignment, context = align(pair, tmp_path, epochs=20, iterative_epochs=20, propose_every=1)
    facts = alignment.facts
    assert facts.promoted_pairs > 0
    assert facts.train_pairs == pair.facts.links["train"] + facts.promoted_pairs
    assert context.last["promoted_pairs"] == facts.promoted_pairs


def test_without_links_the_most_similar_images_are_seeds(pair: GraphPair, tmp_path: Path) -> None:
    alignment, _ = align(pair, tmp_path, unsupervised="image", unsupervised_seeds=20)
    assert alignment.facts.train_pairs == 18, "a tenth of the seeds validates"
    with pytest.raises(StageError, match="unsupervised: character is not a modality of this alignment"):
        align(pair, tmp_path / "none", unsupervised="character")


def test_names_alone_need_names(pair: GraphPair, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="fusion: names needs the modality name or character"):
        align(pair, tmp_path, fusion="names")


def test_proposals_have_to_survive() -> None:
    proposals = Proposals()
    proposals.update(1, {(0, 1), (2, 3), (4, 5)})
    proposals.update(2, {(0, 1), (2, 3), (6, 7)})
    assert proposals.pairs == {(0, 1), (2, 3)}, "a pair that comes later waits for the next restart"
    for number in (3, 4, 5):
        proposals.update(number, {(0, 1), (6, 7)})
    assert proposals.promoted(5) == []
    proposals.update(6, {(6, 7), (0, 1)})
    assert proposals.pairs == {(0, 1), (6, 7)}, "the sixth proposal starts again"
    for number in (7, 8, 9, 10):
        proposals.update(number, {(6, 7)})
    assert proposals.promoted(10) == [(6, 7)]
    assert proposals.pairs == set()


def test_the_most_similar_pairs_are_one_to_one() -> None:
    left = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0]])
    right = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.9]])
    assert most_similar(left, right, 3) == [(0, 0), (2, 2), (1, 1)]
    assert most_similar(left, right, 1) == [(0, 0)]
