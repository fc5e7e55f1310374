"""The parts of training that are plain arithmetic: schedules, order, layout, tree sums, operations, memory."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from stages.model.config import DecoderConfig, ExpertsConfig
from stages.model.decoder import Decoder
from stages.model.parameters import parameter_count
from stages.parallel.collectives import Collectives, sum_of_squares
from stages.training import buffers, flops, layout, memory, peak
from stages.training.gradients import Flight
from stages.training.ramp import BatchSizeRamp
from stages.training.recipe import Execution, Recipe, Training
from stages.training.schedule import learning_rate
from stages.training.tree import Pieces, leaf_range, piece_spans
from tests.stages.model.models import SHAPES, random_tokens, shaped, small_model

# -- schedules


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup_stable_decay", "constant"])
def test_warm_up_reaches_the_peak_once(schedule: str) -> None:
    recipe = Recipe(steps=100, warmup_steps=10, learning_rate=2.0, schedule=schedule)
    rates = [learning_rate(recipe, step, 0) for step in range(100)]
    assert rates[:11] == pytest.approx([2.0 * (step + 1) / 11 for step in range(11)])
    assert max(rates) == rates[10] == 2.0


def test_where_decays_end_and_what_lies_between() -> None:
    fields = {"steps": 101, "learning_rate": 1.0, "final_learning_rate_fraction": 0.2}
    cosine, linear = (Recipe(**fields, schedule=name) for name in ("cosine", "linear"))
    assert learning_rate(cosine, 100, 0) == pytest.approx(0.2)
    assert learning_rate(cosine, 50, 0) == pytest.approx(0.6)
    assert learning_rate(cosine, 25, 0) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(linear, 25, 0) == pytest.approx(0.8)
    stable = Recipe(**fields, schedule="warmup_stable_decay", decay_steps=11)
    assert [learning_rate(stable, step, 0) for step in (50, 90, 95, 100)] == pytest.approx([1.0, 1.0, 0.6, 0.2])
    short = Recipe(**fields, schedule="cosine", decay_steps=51)
    assert [learning_rate(short, step, 0) for step in (50, 51, 100)] == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup_stable_decay"])
def test_a_ramped_batch_is_warmed_up_and_decayed_over_samples(schedule: str) -> None:
    """Where as many samples were taken the learning rate is that of a run at the full size, as BLOOM's was."""
    fields = {"global_batch_size": 64, "micro_batch_size": 4, "warmup_steps": 10, "schedule": schedule}
    ramp = BatchSizeRamp(start=16, increment=16, samples=996)
    ramped = Recipe(**fields, steps=200, batch_size_ramp=ramp, decay_steps=50)
    samples = [0]
    for _ in range(200):
        samples.append(samples[-1] + ramped.batch_size(samples[-1]))
    assert ramp.taken(200, 64) == samples[-1]
    whole = samples[-1] // 64
    assert 64 * whole == samples[-1]  # so that there is such a run
    full = Recipe(**fields, steps=whole, decay_steps=50)
    rates = [learning_rate(ramped, step, taken) for step, taken in enumerate(samples[:-1])]
    for taken, rate in zip(samples[:-1], rates, strict=True):
        if taken % 64 == 0 and taken >= 640:
            assert rate == pytest.approx(learning_rate(full, taken // 64, taken), rel=1e-9)
    assert rates[:3] == pytest.approx([1e-3 * taken / 64 / 11 for taken in (16, 32, 48)])
    assert rates[-1] == pytest.approx(1e-4)
    with pytest.raises(ValueError, match="whose samples make"):
        Recipe(**fields, steps=15, batch_size_ramp=ramp)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"global_batch_size": 10, "micro_batch_size": 4}, "multiple of micro_batch_size"),
        ({"steps": 5, "warmup_steps": 5}, "warmup_steps 5 must be fewer"),
        ({"steps": 9, "warmup_steps": 5, "decay_steps": 5}, "together exceed"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(fields: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Recipe(**fields)


# -- the layout of groups


@given(
    shapes=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple), min_size=1, max_size=6),
    ranks=st.integers(1, 9),
)
def test_a_layout_is_aligned_and_covers_its_parameters(shapes: list[tuple[int, ...]], ranks: int) -> None:
    group = layout.group("g", {str(index): shape for index, shape in enumerate(shapes)})
    assert group.numel == sum(math.prod(shape) for shape in shapes)
    assert all(slot.offset % layout.ALIGNMENT == 0 for slot in group.slots)
    assert all(left.end <= right.offset for left, right in itertools.pairwise(group.slots))
    assert group.slots[-1].end <= group.size <= group.padded(ranks) == ranks * group.shard(ranks)
    assert group.shard(ranks) % layout.ALIGNMENT == 0
    assert group.padded(ranks) - group.size < layout.ALIGNMENT * ranks


def test_what_decays_is_matrices_alone() -> None:
    """An expert's biases are stacked to a matrix, and are biases still."""
    names = {"mlp.dense.weight": (4, 8), "mlp.experts.weight": (3, 4, 8), "word_embeddings.weight": (9, 4)}
    assert all(layout.is_decayed(name, shape) for name, shape in names.items())
    others = {"mlp.dense.bias": (4,), "mlp.experts.bias": (3, 4), "ln_f.weight": (4,), "ln_f.bias": (4,)}
    assert not any(layout.is_decayed(name, shape) for name, shape in others.items())


# -- sums in a tree


def tree_sum(values: list[torch.Tensor], ranks: int) -> torch.Tensor:
    """Each rank sums its run; one owner finishes."""
    owner = Pieces()
    for rank in range(ranks):
        pieces = Pieces()
        run = leaf_range(rank, ranks, len(values))
        for leaf in run:
            pieces.add(leaf, 1, values[leaf].clone())
        held = pieces.take()
        assert [(piece.start, piece.length) for piece in held] == piece_spans(run)
        for piece in held:
            owner.add(piece.start, piece.length, piece.value)
    return owner.total()


@given(leaves=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_sum_is_the_same_however_ranks_share_it(leaves: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = list(
        torch.randn(leaves, 3, generator=generator) * torch.rand(leaves, 1, generator=generator).mul(20).exp()
    )
    whole = tree_sum(values, 1)
    for ranks in (2, 3, 4, 5, 7, 50):
        assert torch.equal(tree_sum(values, ranks), whole)
    assert torch.allclose(
        whole.double(), torch.stack(values).double().sum(0), rtol=1e-4, atol=1e-2 * values[0].abs().max()
    )


def test_the_order_of_a_plain_sum_would_show() -> None:
    """The test above can fail: adding from left to right depends on where the cuts are."""
    values = [torch.tensor([value]) for value in (1e8, 1.0, -1e8, 1.0)]
    left_to_right = (values[0] + values[1]) + values[2] + values[3]
    assert not torch.equal(tree_sum(values, 1), left_to_right)


@given(rows=st.integers(1, 60), seed=st.integers(0, 1000), magnitude=st.integers(-15, 15))
def test_the_sum_of_squares_does_not_depend_on_the_cut(rows: int, seed: int, magnitude: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, layout.ALIGNMENT, generator=generator) * 10.0**magnitude
    values *= torch.rand(rows, 1, generator=generator) ** 8
    whole = sum_of_squares([values.view(-1)], rows, Collectives())
    parts = sum_of_squares([row.clone() for row in values], rows, Collectives())
    with_padding = sum_of_squares([values.view(-1), torch.zeros(640)], rows, Collectives())
    assert whole == parts == with_padding
    assert whole == pytest.approx(float(values.double().square().sum()), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("places", [[77], [3, 77]])
def test_a_sum_of_squares_that_is_not_finite_says_so(bad: float, places: list[int]) -> None:
    values = torch.ones(128)
    values[places] = bad
    assert sum_of_squares([values], 2, Collectives()) == math.inf


def test_exchanges_land_when_there_is_no_room_for_the_next() -> None:
    """Two of the largest group at once, or a whole bucket; small ones ride along; a larger one flies alone."""
    landed: list[str] = []
    flight = Flight(largest=100, at_once=2)

    def fly(name: str, elements: int, bucket_bytes: int = 4000) -> None:
        flight.make_room(4 * elements, 1, bucket_bytes)
        flight.begin(4 * elements, lambda: landed.append(name))

    for name, elements in (("a", 100), ("b", 90), ("c", 10)):
        fly(name, elements)
    assert landed == []
    fly("d", 50)
    assert landed == ["a"]
    fly("e", 60, bucket_bytes=200)
    assert landed == ["a", "b", "c", "d"]
    flight.land()
    assert landed == ["a", "b", "c", "d", "e"]


# -- operations


def test_the_operations_of_bloom_176b_are_those_of_its_log() -> None:
    """104.70 s a step of 2048 samples on 384 GPUs were logged as 149.77 TFLOPs a GPU."""
    bloom = DecoderConfig(vocab_size=250_880, hidden_size=14336, layers=70, heads=112)
    per_second = 2048 * 2048 / 104.70 / 384 / 1e12
    assert flops.flops_per_target(bloom, 2048, recompute=True) * per_second == pytest.approx(149.77, rel=1e-4)
    assert flops.flops_per_target(bloom, 2048) * per_second == pytest.approx(112.885, rel=1e-5)
    needed = flops.parameter_flops(176_247_271_424, 2048 * 2048)
    assert needed / 104.70 / 384 / 1e12 == pytest.approx(110.32, rel=1e-4)
    assert flops.utilisation(needed, 104.70, 384 * 312e12) == pytest.approx(0.3536, rel=1e-3)


@pytest.mark.parametrize("shape", [*SHAPES, "experts"])
def test_the_operations_of_every_shape_are_those_that_torch_counts(shape: str) -> None:
    experts = ExpertsConfig(per_layer=(0, 4), top_k=2, residual=True)
    config = shaped("llama", experts=experts) if shape == "experts" else shaped(shape)
    model, tokens = small_model(config), random_tokens(2, 30)
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    counted = sum(count for operation, count in counts.items() if "attention" not in str(operation))
    attention = 3 * 4 * config.layers * config.heads * config.head_size * 30  # a token's; torch may leave it out
    assert counted == 2 * 30 * (flops.flops_per_target(config, 30) - attention)


# -- memory

TABLE_1 = {  # the ZeRO paper's Table 1: GB a device by ranks, at stages 1, 2 and 3; exact values of the formulas
    (7.5e9, 4): (52.5, 41.25, 30.0),
    (7.5e9, 16): (35.625, 21.5625, 7.5),
    (7.5e9, 64): (31.40625, 16.640625, 1.875),
    (128e9, 1024): (513.5, 257.75, 2.0),
    (1e12, 64): (4187.5, 2218.75, 250.0),
    (1e12, 1024): (4011.71875, 2013.671875, 15.625),
}


@pytest.mark.parametrize(("parameters", "ranks"), TABLE_1)
def test_table_1_of_the_zero_paper(parameters: float, ranks: int) -> None:
    found = [memory.state_bytes(parameters, stage, ranks) / 1e9 for stage in (1, 2, 3)]
    assert found == pytest.approx(TABLE_1[parameters, ranks], rel=1e-12)
    assert memory.state_bytes(parameters, 0, ranks) == 16 * parameters


def test_table_2_of_the_zero_paper() -> None:
    """The largest model in 32 GB on 64 GPUs, in billions of parameters."""
    found = [memory.largest_model(32e9, stage, 64) / 1e9 for stage in range(4)]
    assert found == pytest.approx([2.0, 7.6, 14.4, 128.0], abs=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_planner_lays_a_decoder_out_as_training_does(shape: str) -> None:
    config = shaped(shape, vocab_size=1001, hidden_size=60, layers=3)
    with torch.device("meta"):
        model = Decoder(config)
    stem = [model.word_embeddings, model.position_embeddings, model.word_embeddings_layernorm]
    head = [model.ln_f, model.word_embeddings if model.lm_head is None else model.lm_head]
    assert buffers.groups_of(model, list(model.blocks), stem, head) == memory.groups_of(config)


def test_the_planner_counts_every_expert() -> None:
    experts = ExpertsConfig(per_layer=(0, 4), residual=True)
    config = DecoderConfig(vocab_size=1000, hidden_size=64, layers=2, heads=4, experts=experts)
    assert sum(group.numel for group in memory.groups_of(config)) == parameter_count(config)


def test_higher_stages_and_recomputing_need_less() -> None:
    config = DecoderConfig(vocab_size=50_000, hidden_size=1024, layers=24, heads=16)
    recipe = Recipe(global_batch_size=32, micro_batch_size=1, precision="bfloat16")
    needed = [memory.predict(config, recipe, Execution(ranks=8, zero_stage=stage)).total for stage in range(4)]
    assert needed == sorted(needed, reverse=True)
    assert len(set(needed)) == 4
    ways: list[dict[str, Any]] = [
        {},
        {"recompute": "full", "recompute_every": 4},
        {"recompute": "selective"},
        {"recompute": "full", "recompute_every": 2},
        {"recompute": "full"},
        {"recompute": "full", "offload_activations": "file"},
    ]
    recipe = recipe.model_copy(update={"sequence_length": 2048})
    kept = [memory.predict(config, recipe, Execution.model_validate(way)).transient for way in ways]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == len(ways)


def test_what_is_suggested_needs_less_and_less_and_changes_no_fingerprint() -> None:
    config = DecoderConfig(vocab_size=50_000, hidden_size=1024, layers=24, heads=16)
    recipe = Recipe(global_batch_size=32, micro_batch_size=1, sequence_length=2048, precision="bfloat16")
    now = Training(ranks=8, zero_stage=1)
    suggested = list(memory.cheaper_settings(now))
    needed = [memory.predict(config, recipe, now.model_copy(update=fields)).total for fields in suggested]
    assert suggested[0] == {"zero_stage": 2}
    assert max(needed) < memory.predict(config, recipe, now).total
    assert needed[-1] == min(needed)
    for fields in suggested:
        Training.model_validate(now.model_dump() | fields)
    alone = list(memory.cheaper_settings(Training(ranks=1, zero_stage=0)))
    assert alone[0] == {"recompute": "selective"}  # a stage saves nothing where there is nobody to share with
    free = Training(ranks=8, zero_stage=1, free_order_ranks=8)
    for fields in memory.cheaper_settings(free):
        Training.model_validate(free.model_dump() | fields)


@pytest.mark.parametrize(
    ("leaves", "ranks", "stage", "sums"),
    [(8, 1, 1, {(1, 1, 2, 1, 2, 2, 3, 1)}), (8, 8, 1, {(1,)}), (8, 4, 0, {(1, 1)}), (8, 2, 2, {(1, 1, 2, 1)}),
     (8, 4, 3, {(1, 1)}), (8, 3, 1, {(1, 1), (1, 1, 2), (1, 2, 2)}), (5, 2, 3, {(1, 1, 2)})],
)  # fmt: skip
def test_how_many_partial_sums_are_held(leaves: int, ranks: int, stage: int, sums: set[tuple[int, ...]]) -> None:
    config = DecoderConfig(vocab_size=100, hidden_size=16, layers=1, heads=2)
    assert peak.Setting(memory.groups_of(config), ranks, stage, 4, 1 << 20, leaves).sums == sums
