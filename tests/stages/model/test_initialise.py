from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.model.decoder import Decoder
from stages.model.initialise import CHUNK, initial_values, initialise, normal
from tests.stages.model.models import small_config


def test_is_blooms() -> None:
    config = small_config(hidden_size=96, initial_deviation=0.0048)
    model = Decoder(config)
    initialise(model, 1)
    for name, value in model.state_dict().items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif value.dim() == 1:
            assert (value == 1).all(), name
        else:
            writes = name.endswith(("self_attention.dense.weight", "dense_4h_to_h.weight"))
            wanted = 0.0048 / math.sqrt(2 * config.layers) if writes else 0.0048
            assert abs(value.std().item() / wanted - 1) < 0.04, name
            assert abs(value.mean().item()) < 0.05 * wanted, name


def test_depends_on_seed_and_name_only() -> None:
    config = small_config()
    model, again = Decoder(config), Decoder(config)
    initialise(model, 1)
    torch.manual_seed(99)
    initialise(again, 1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert torch.equal(value.view(-1), initial_values(config, 1, name, 0, value.numel()))
        middle = initial_values(config, 1, name, 1, value.numel() - 1)
        assert torch.equal(value.view(-1)[1:-1], middle)
        if value.dim() == 2:
            assert not torch.equal(value.view(-1), initial_values(config, 2, name, 0, value.numel()))
            assert not torch.equal(value.view(-1), initial_values(config, 1, name + "x.weight", 0, value.numel()))


@given(st.integers(0, 3 * CHUNK), st.integers(0, 3 * CHUNK))
@settings(max_examples=25)
def test_any_range_is_a_slice_of_the_whole(a: int, b: int) -> None:
    start, stop = sorted((a, b))
    assert torch.equal(normal(3, "x", start, stop), normal(3, "x", 0, 3 * CHUNK)[start:stop])
