"""The pretraining stage on real source code: its artifact, and what it refuses."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from pydantic import ValidationError

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.tokens import TokenDataset
from stages.base import StageError
from stages.model.config import DecoderConfig
from stages.model.parameters import parameter_count
from stages.training.pretrain import Pretrain
from tests.stages.model.models import SHAPES
from tests.stages.training.texts import token_set
from tests.support import run_stage

MODEL = DecoderConfig(vocab_size=512, hidden_size=32, layers=2, heads=4, context_length=64, initial_deviation=0.1)
FIELDS = {
    "tokens": "tokens",
    "model": MODEL,
    "steps": 30,
    "global_batch_size": 8,
    "micro_batch_size": 4,
    "sequence_length": 64,
    "learning_rate": 0.01,
    "warmup_steps": 3,
    "validation_every": 10,
    "validation_samples": 8,
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [(library / name).read_text() for name in ("argparse.py", "ast.py", "bisect.py", "calendar.py", "cmd.py")]
    return token_set(tmp_path_factory.mktemp("tokens") / "set", {"train": texts[:4], "validation": texts[4:]}, 500)


def test_a_little_text_is_passed_over_a_few_times_only(tokens: TokenDataset, tmp_path: Path) -> None:
    train = tokens.facts.splits["train"].tokens
    passes = 12.5 * 8 * 64 / train
    stage = Pretrain.model_validate(FIELDS | {"max_epochs": passes, "warmup_steps": 6})
    checkpoint, context = run_stage(stage, {"tokens": tokens}, tmp_path / "few")
    assert checkpoint.facts["steps"] == 13
    assert any(note.startswith("13 of 30 steps: ") for note in context.notes)
    shorter = Pretrain.model_validate(FIELDS | {"steps": 13, "warmup_steps": 2})
    same, _ = run_stage(shorter, {"tokens": tokens}, tmp_path / "same")
    assert same.facts["validation_loss"] == checkpoint.facts["validation_loss"]
    enough = Pretrain.model_validate(FIELDS | {"max_epochs": 1e6, "steps": 4})
    assert run_stage(enough, {"tokens": tokens}, tmp_path / "enough")[0].facts["steps"] == 4


def test_passes_are_refused_where_the_schedule_does_not_follow_from_steps() -> None:
    with pytest.raises(ValidationError, match="max_epochs shortens a schedule"):
        Pretrain.model_validate(FIELDS | {"max_epochs": 2, "decay_steps": 5})


@pytest.mark.parametrize("shape", ["opt", "llama", "palm"])
def test_other_shapes_learn_too(shape: str, tokens: TokenDataset, tmp_path: Path) -> None:
    model = MODEL.model_dump() | SHAPES[shape] | {"embedding_deviation": None, "logit_scale": 1.0}
    stage = Pretrain.model_validate(FIELDS | {"model": model, "steps": 15, "validation_every": 15})
    checkpoint, _ = run_stage(stage, {"tokens": tokens}, tmp_path)
    assert checkpoint.facts["validation_loss"] < 0.9 * checkpoint.facts["validation_loss_before"]


def test_it_learns_and_produces_a_checkpoint(tokens: TokenDataset, tmp_path: Path) -> None:
    stage = Pretrain.model_validate(FIELDS)
    checkpoint, context = run_stage(stage, {"tokens": tokens}, tmp_path)
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.config == MODEL.model_copy(update={"document_start": ()})
    assert checkpoint.tokenizer().get_vocab_size() == tokens.vocab_size
    facts = checkpoint.facts
    assert facts["tokens_seen"] == 30 * 8 * 64
    assert facts["validation_loss"] == context.last["validation_loss"] < 0.85 * facts["validation_loss_before"]
    assert context.figures == ["loss", "memory"]
    assert context.progressed[-1] == (30, 30)
    losses = [(step, values["loss"]) for step, values in context.recorded if "loss" in values]
    assert [step for step, _ in losses] == list(range(1, 31))
    costs = {"tokens_per_second", "tflops_per_rank", "model_flops_utilisation", "seconds_data"}
    assert {"learning_rate", "gradient_norm", *costs} <= context.last.keys()
    # The validation split is one document of one source, so the loss of that source is the whole loss.
    assert context.last["validation_loss/source/source 0"] == pytest.approx(facts["validation_loss"])
    from stages.training import memory_plan

    needed = memory_plan.predict(MODEL, stage, stage)
    measured = [context.last[f"memory_{part}_bytes"] for part in ("parameters", "master", "optimizer", "gradients")]
    assert measured == [needed.parameters, needed.master, needed.optimizer, needed.gradients]
    # The checkpoint holds the weights that were validated last.
    from stages.training.initial_weights import initial_weights
    from stages.training.language_modelling import language_modelling
    from stages.training.recipe import Recipe

    model = checkpoint.load()
    recipe, initial = Recipe(sequence_length=64, seed=42), initial_weights(checkpoint)
    task = language_modelling(model, initial, tokens, recipe, separate_documents=True)
    samples = [index * task.validation_samples // 8 for index in range(8)]
    loss = task.validation_loss(model, samples)
    assert loss.total.item() / loss.targets == pytest.approx(facts["validation_loss"], rel=1e-5)
    # A second run only writes the artifact again.
    _, again = run_stage(stage, {"tokens": tokens}, tmp_path)
    assert "resumes from the checkpoint of step 30" in again.notes
    assert not [values for _, values in again.recorded if "loss" in values]
    assert again.last["validation_loss"] == facts["validation_loss"]


def test_validation_loss_by_source_and_language(tmp_path: Path) -> None:
    """The loss of each group is the mean over its documents' tokens, wherever samples cut them."""
    import torch

    from stages.model.decoder import Decoder
    from stages.parallel.collectives import Collectives
    from stages.training.batch_losses import BatchLosses
    from stages.training.language_modelling import language_modelling
    from stages.training.recipe import Recipe

    def no_initial(name: str, start: int, length: int) -> torch.Tensor:
        raise AssertionError("nothing is initialised")

    texts = ["a b c " * 40, "d e f g h " * 30, "1 2 3 " * 50]
    dataset = token_set(tmp_path / "set", {"train": texts, "validation": texts}, 300)
    torch.manual_seed(1)
    model = Decoder(MODEL)
    task = language_modelling(model, no_initial, dataset, Recipe(sequence_length=16), separate_documents=True)
    assert set(task.group_names) == {f"{kind}/{kind} {n}" for kind in ("source", "language") for n in range(3)}
    samples = range(task.validation_samples)
    split = dataset.split("validation")
    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for sample in samples:
            loss = task.validation_loss(model, [sample])
            assert loss.by_target is not None
            for place, value in enumerate(loss.by_target.tolist()):
                document = split.document_at(16 * sample + place + 1)
                for name in (f"source/{document.source}", f"language/{document.language}"):
                    found.setdefault(name, []).append(value)
        sums = BatchLosses(1, task, Collectives())
        sums.put(0, task.validation_loss(model, samples))
    assert len(found) == 6
    expected = {name: sum(values) / len(values) for name, values in found.items()}
    assert sums.means().groups == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_trained_is_refused(tokens: TokenDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longer than the model's context_length 64"):
        Pretrain.model_validate(FIELDS | {"sequence_length": 65})
    small = Pretrain.model_validate(FIELDS | {"model": MODEL.model_copy(update={"vocab_size": 100})})
    with pytest.raises(StageError, match=r"vocabulary of 500, but the model's vocab_size is 100"):
        run_stage(small, {"tokens": tokens}, tmp_path)
    long = MODEL.model_copy(update={"context_length": 10**6})
    with pytest.raises(StageError, match="shorter than one sample"):
        run_stage(
            Pretrain.model_validate(FIELDS | {"model": long, "sequence_length": 10**6}), {"tokens": tokens}, tmp_path
        )


def test_its_demand() -> None:
    demand = Pretrain.model_validate(FIELDS | {"ranks": 3}).demand()
    assert (demand.task.cpus, demand.ranks, demand.rank.cpus) == (0, 3, 1)
    large = MODEL.model_copy(update={"hidden_size": 4096, "layers": 30})
    asked = [
        Pretrain.model_validate(FIELDS | {"model": large, "ranks": 4, "zero_stage": stage}).demand().rank.memory_bytes
        for stage in (0, 1, 2, 3)
    ]
    assert asked == sorted(asked, reverse=True)
    assert asked[0] > 16 * parameter_count(large) > asked[3]
