"""The layout of groups: aligned and complete."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from stages.training import layout


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


def test_only_matrices_decay() -> None:
    """The biases of experts are stacked in a matrix, but remain biases."""
    names = {"mlp.dense.weight": (4, 8), "mlp.experts.weight": (3, 4, 8), "word_embeddings.weight": (9, 4)}
    assert all(layout.is_decayed(name, shape) for name, shape in names.items())
    others = {"mlp.dense.bias": (4,), "mlp.experts.bias": (3, 4), "ln_f.weight": (4,), "ln_f.bias": (4,)}
    assert not any(layout.is_decayed(name, shape) for name, shape in others.items())
