"""Training that starts from a checkpoint: its weights alone, its optimizer too, or the whole run."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.artifacts.checkpoint import Checkpoint, CheckpointForecast
from stages.artifacts.held_out_loss import held_out_loss
from stages.artifacts.tokenizer import TokenizerForecast
from stages.artifacts.tokens import TokenDataset
from stages.base import StageError, Stopped
from stages.model.config import DecoderConfig
from stages.training import checkpoints
from stages.training.loop import train
from stages.training.pretrain import Pretrain
from stages.training.recipe import Execution, Recipe
from stages.training.schedule import stable_steps
from stages.training.task import StartState
from tests.stages.model.models import shaped
from tests.stages.training.test_exactness import assert_same, state
from tests.stages.training.texts import token_set
from tests.stages.training.toy import RECIPE, RecordingReporter, Workers, single_rank, spec
from tests.support import run_stage

MODEL = DecoderConfig(vocab_size=512, hidden_size=32, layers=2, heads=4, context_length=64, initial_deviation=0.1)
FIELDS: dict[str, Any] = {
    "tokens": "tokens",
    "steps": 8,
    "global_batch_size": 4,
    "micro_batch_size": 2,
    "sequence_length": 64,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "schedule": "warmup_stable_decay",
    "decay_steps": 3,
    "validation_every": 4,
    "validation_samples": 8,
}
LONGER = FIELDS | {"steps": 12, "decay_steps": 4}


def library(*names: str) -> list[str]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    return [(folder / name).read_text() for name in names]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    texts = {"train": library("argparse.py", "ast.py", "calendar.py"), "validation": library("cmd.py")}
    return token_set(tmp_path_factory.mktemp("tokens") / "set", texts, 500)  # type: ignore[arg-type]


def trained(tokens: TokenDataset, directory: Path, base: Checkpoint | None = None, **fields: Any) -> Any:
    """The checkpoint of a training, and its context. It starts from `base` if there is one."""
    start = {"initial": {"checkpoint": "base", **fields.pop("initial", {})}} if base else {"model": MODEL}
    stage = Pretrain.model_validate(FIELDS | start | fields)
    return run_stage(stage, {"tokens": tokens, "base": base} if base else {"tokens": tokens}, directory, draw=False)


@pytest.fixture(scope="module")
def base(tokens: TokenDataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A finished training that kept its state before the decay."""
    made, _ = trained(tokens, tmp_path_factory.mktemp("base"), keep_training_state="before_decay")
    assert isinstance(made, Checkpoint)
    return made


def test_the_loss_starts_at_that_of_the_checkpoint(tokens: TokenDataset, base: Checkpoint, tmp_path: Path) -> None:
    tuned, _ = trained(tokens, tmp_path, base, learning_rate=0.001, schedule="linear")
    facts = tuned.facts
    assert facts["validation_loss_before"] == base.facts["validation_loss"]
    measured = held_out_loss(base.load(), tokens, 64, 8, lambda done: None)
    assert facts["validation_loss_before"] == pytest.approx(measured, rel=1e-5)
    assert facts["validation_loss"] < facts["validation_loss_before"]
    assert facts["tokens_seen"] == 8 * 4 * 64
    assert facts["started_from"] == {"take": "weights", **base.facts}
    assert tuned.config == MODEL.model_copy(update={"document_start": ()})


def test_a_continued_run_is_the_longer_run_bit_for_bit(tokens: TokenDataset, base: Checkpoint, tmp_path: Path) -> None:
    """The state before the decay, then more steps of the stable phase, then another decay."""
    assert base.facts["training_state_step"] == 5
    longer, _ = trained(tokens, tmp_path / "longer", **{k: LONGER[k] for k in ("steps", "decay_steps")})
    continued, context = trained(tokens, tmp_path / "continued", base, initial={"take": "run"}, steps=12, decay_steps=4)
    assert_same(continued.state_dict(), longer.state_dict())
    assert continued.facts["tokens_seen"] == longer.facts["tokens_seen"]
    assert [step for step, values in context.recorded if "loss" in values] == list(range(6, 13))
    assert context.notes[0] == "starts from the training state of step 5"


def test_the_optimizer_continues_with_a_new_schedule(tokens: TokenDataset, base: Checkpoint, tmp_path: Path) -> None:
    _, context = trained(tokens, tmp_path, base, initial={"take": "optimizer"}, steps=2, decay_steps=None,
                         warmup_steps=1)  # fmt: skip
    rates = [values["learning_rate"] for _, values in context.recorded if "loss" in values]
    assert rates == [0.005, 0.01]
    saved = checkpoints.verify(tmp_path / "scratch" / "checkpoints" / "step-00000002")
    assert saved.progress["updates"] == 5 + 2  # the moments are averages over all of them
    assert saved.progress["samples"] == 2 * 4


def test_a_kill_in_a_continued_run_changes_nothing(tokens: TokenDataset, base: Checkpoint, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"initial": {"take": "run"}, "steps": 12, "decay_steps": 4, "checkpoint_every_steps": 1}
    fields |= {"keep_training_state": "before_decay", "checkpoints_kept": 1}
    whole, _ = trained(tokens, tmp_path / "whole", base, **fields)

    from tests.support import RecordingContext

    context = RecordingContext(tmp_path / "out", tmp_path / "scratch", draw=False)
    for folder in (context.out, context.scratch):
        folder.mkdir()
    stage = Pretrain.model_validate(FIELDS | fields | {"initial": {"checkpoint": "base", "take": "run"}})
    for _ in range(6):  # stopped after every other step, across the step that is kept
        context.stop = True
        with pytest.raises(Stopped):
            stage.bind({"tokens": tokens, "base": base}).run(context)
    context.stop = False
    again = stage.bind({"tokens": tokens, "base": base}).run(context)
    assert_same(again.state_dict(), whole.state_dict())
    kept = [checkpoints.kept_state(one.path) for one in (again, whole)]
    assert [one.step for one in kept if one] == [8, 8]


def test_every_stage_and_number_of_ranks_continues_to_the_same_bits(workers: Workers, tmp_path: Path) -> None:
    short = RECIPE.model_copy(update={"steps": 2, "schedule": "constant"})
    longer = RECIPE.model_copy(update={"steps": 5, "schedule": "constant"})
    wanted = train(single_rank(), spec(tmp_path / "longer", longer))
    first = train(single_rank(), spec(tmp_path / "short", short))
    for ranks, stage in ((1, 0), (2, 1), (3, 2), (2, 3)):
        continued = spec(tmp_path / f"{ranks}-{stage}", longer, Execution(ranks=ranks, zero_stage=stage))
        continued = type(continued)(**{**vars(continued), "start": StartState(first.checkpoint, continues=True)})
        for result, _ in workers.gang(train, continued, ranks=ranks):
            assert_same(state(result), state(wanted))


def test_a_ramp_does_not_move_the_end_of_the_stable_phase() -> None:
    ramp = {"start": 4, "increment": 4, "samples": 40}
    fields: dict[str, Any] = {"global_batch_size": 16, "micro_batch_size": 4, "schedule": "warmup_stable_decay"}
    recipe = Recipe.model_validate(fields | {"steps": 20, "decay_steps": 5, "batch_size_ramp": ramp})
    from stages.training.schedule import learning_rate

    samples, rates = 0, []
    for step in range(recipe.steps):
        rates.append(learning_rate(recipe, step, samples))
        samples += recipe.batch_size(samples)
    stable = stable_steps(recipe)
    assert set(rates[:stable]) == {recipe.learning_rate}
    assert rates[stable + 1] < recipe.learning_rate


@pytest.mark.parametrize("shape", ["bloom", "llama"])
def test_a_longer_sequence_widens_the_context(shape: str) -> None:
    config = shaped(shape)
    stage = planned(config, sequence_length=200)
    forecast = stage.forecast()
    assert forecast is not None
    assert (forecast.config.context_length, config.context_length) == (200, 128)
    assert planned(config, sequence_length=100).forecast().config == config


def planned(config: DecoderConfig | None, origins: tuple[str | None, str | None] = ("", "model"),
            state_step: int | None = None, **fields: Any) -> Any:  # fmt: skip
    """A training from the checkpoint of step `model` as `plan` sees it."""
    known = None
    if config is not None:
        known = CheckpointForecast(config=config, tokenizer_of=origins[0], state_step=state_step)
    initial = {"checkpoint": "model", **fields.pop("initial", {})}
    stage = Pretrain.model_validate(FIELDS | {"initial": initial} | fields)
    return stage.with_forecasts({"model": known, "tokens": TokenizerForecast(tokenizer_of=origins[1])})


def test_plan_refuses_what_cannot_go_on() -> None:
    config = shaped("opt")
    with pytest.raises(StageError, match="sequence_length 200 is longer than the context_length 128 of model"):
        planned(config, sequence_length=200).forecast()
    with pytest.raises(StageError, match=r"model and tokens have different tokenizers, those of model and of other"):
        planned(config, ("", "other")).forecast()
    with pytest.raises(StageError, match="model has only weights: set keep_training_state to end"):
        planned(config, initial={"take": "run"}).forecast()
    with pytest.raises(StageError, match=r"steps 8 counts from the beginning .* model has 8 steps"):
        planned(config, state_step=8, initial={"take": "run"}).forecast()
    with pytest.raises(StageError, match=r"model is quantized \(int8\)"):
        planned(config.model_copy(update={"quantization": "int8"})).forecast()
    assert planned(None, (None, None)).forecast() is None
    assert planned(config, (None, "other")).forecast() is not None
    assert planned(config, state_step=8, steps=9, initial={"take": "run"}).forecast() is not None
    early = Pretrain.model_validate(FIELDS | {"model": MODEL, "keep_training_state": "end", "patience": 1}).forecast()
    assert early is not None
    assert early.state_step == 0  # it may end before the last step, so that fewer steps can continue it


def test_one_source_of_the_architecture() -> None:
    with pytest.raises(ValueError, match="but neither is set"):
        Pretrain.model_validate(FIELDS)
    with pytest.raises(ValueError, match="but both are set"):
        Pretrain.model_validate(FIELDS | {"model": MODEL, "initial": {"checkpoint": "base"}})
    with pytest.raises(ValueError, match="before_decay needs schedule: warmup_stable_decay"):
        Pretrain.model_validate(FIELDS | {"model": MODEL, "schedule": "cosine", "keep_training_state": "before_decay"})


def test_a_run_refuses_other_tokens_and_a_missing_state(tokens: TokenDataset, base: Checkpoint, tmp_path: Path) -> None:
    others = token_set(tmp_path / "set", {"train": library("ast.py"), "validation": library("cmd.py")}, 400)
    with pytest.raises(StageError, match=r"the checkpoint's tokenizer \(500 tokens\) is not the one"):
        trained(others, tmp_path / "other", base)
    bare, _ = trained(tokens, tmp_path / "bare", steps=5)
    with pytest.raises(StageError, match="the checkpoint has only weights"):
        trained(tokens, tmp_path / "no-state", bare, initial={"take": "optimizer"})


def test_a_training_that_ends_early_keeps_its_end(tokens: TokenDataset, tmp_path: Path) -> None:
    made, _ = trained(tokens, tmp_path, keep_training_state="before_decay", stop_after_tokens=3 * 4 * 64)
    kept = checkpoints.kept_state(made.path)
    assert kept is not None
    assert kept.step == made.facts["training_state_step"] == 3
    weights = checkpoints.weights(kept.path)
    assert all(torch.equal(weights[name], value) for name, value in made.state_dict().items())


def test_moments_of_what_was_frozen_start_at_zero(tokens: TokenDataset, tmp_path: Path) -> None:
    frozen, _ = trained(tokens, tmp_path / "frozen", freeze=["word_embeddings"], keep_training_state="end")
    both, _ = trained(tokens, tmp_path / "both", frozen, initial={"take": "optimizer"}, steps=5)
    still, _ = trained(tokens, tmp_path / "still", frozen, initial={"take": "optimizer"}, steps=5,
                       freeze=["word_embeddings", "ln_f"])  # fmt: skip
    before, name = frozen.state_dict(), "word_embeddings.weight"
    assert torch.equal(still.state_dict()[name], before[name])
    assert torch.equal(still.state_dict()["ln_f.weight"], before["ln_f.weight"])
    assert not torch.equal(both.state_dict()[name], before[name])
    assert both.facts["validation_loss_before"] == still.facts["validation_loss_before"]


def test_a_finished_run_reports_its_last_validation_again(tmp_path: Path) -> None:
    """Its process was lost after the last checkpoint, and with it what it had reported."""
    train(single_rank(), spec(tmp_path))
    reporter = RecordingReporter()
    result = train(single_rank(reporter), spec(tmp_path))
    assert reporter.curve("validation_loss") == [result.validation_loss]
