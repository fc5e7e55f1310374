from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import StageError
from stages.experts.upcycle import upcycle
from stages.model.config import expert_config
from stages.model.decoder import Decoder
from stages.model.feed_forward import Routing
from stages.model.tensor_transfer import TensorTransfer
from tests.stages.model.models import random_tokens, shaped, small_model

DENSE = small_model()


def converted(
    copies: tuple[int, ...] = (0, 4), top_k: int = 1, granularity: int = 1, residual: bool = False
) -> Decoder:
    config = expert_config(DENSE.config, copies, top_k, granularity, residual)
    model = Decoder(config).eval()
    model.load_state_dict(upcycle(DENSE.state_dict(), DENSE.config, config, seed=1))
    return model


@given(st.tuples(st.integers(0, 5), st.integers(1, 5)), st.data(), st.sampled_from([1, 2, 3]), st.booleans())
@settings(max_examples=12)
@torch.inference_mode()
def test_computes_what_the_dense_model_does(
    copies: tuple[int, int], data: st.DataObject, granularity: int, residual: bool
) -> None:
    top_k = data.draw(st.integers(1, min(count for count in copies if count)))
    model = converted(copies, top_k, granularity, residual)
    tokens = random_tokens(2, 40)
    torch.testing.assert_close(model(tokens), DENSE(tokens), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", ["opt", "llama", "palm"])
@torch.inference_mode()
def test_other_shapes_compute_the_same_as_experts(shape: str) -> None:
    dense, tokens = small_model(shaped(shape)), random_tokens(2, 40)
    config = expert_config(dense.config, (0, 3), 2, 2, True)
    model = Decoder(config).eval()
    model.load_state_dict(upcycle(dense.state_dict(), dense.config, config, seed=1))
    torch.testing.assert_close(model(tokens), dense(tokens), atol=1e-5, rtol=1e-5)


def gradient(model: Decoder, name: str) -> torch.Tensor:
    found = model.get_parameter(name).grad
    assert found is not None
    return found


def test_expert_gradients_sum_to_the_dense_one() -> None:
    model, dense = converted(top_k=2), DENSE
    tokens = random_tokens(4, 60)
    model.train()(tokens).logsumexp(-1).sum().backward()
    dense.zero_grad()
    dense(tokens).logsumexp(-1).sum().backward()
    for part in ("dense_h_to_4h", "dense_4h_to_h"):
        ours = gradient(model, f"blocks.1.mlp.experts.{part}.weight").sum(0)
        wanted = gradient(dense, f"blocks.1.mlp.{part}.weight")
        torch.testing.assert_close(ours, wanted, atol=1e-3 * float(wanted.abs().max()), rtol=1e-3)


def test_experts_of_a_layer_get_different_tokens_and_gates_depend_on_the_seed() -> None:
    config = expert_config(DENSE.config, (4, 4), 1, 1, False)
    gates = [
        value
        for seed in (1, 2)
        for name, value in upcycle(DENSE.state_dict(), DENSE.config, config, seed).items()
        if name.endswith("gate.weight")
    ]
    assert len({tuple(gate.flatten().tolist()) for gate in gates}) == 4
    routings: list[Routing] = []
    converted((4, 4)).hidden_states(random_tokens(4, 60), routings=routings)
    assert [routing.layer for routing in routings] == [0, 1]
    assert all((routing.load > 0).all() for routing in routings)


def test_a_lost_tensor_is_an_error() -> None:
    config = expert_config(DENSE.config, (0, 4), 1, 1, False)
    state = DENSE.state_dict()
    with pytest.raises(StageError, match=r"unused \['stray'\]"):
        upcycle(state | {"stray": torch.zeros(1)}, DENSE.config, config, 0)
    del state["ln_f.bias"]
    with pytest.raises(StageError, match=r"no tensor ln_f\.bias"):
        upcycle(state, DENSE.config, config, 0)


def test_transfer_counts() -> None:
    written: dict[str, torch.Tensor] = {}
    source, target = {"a": torch.zeros(2), "b": torch.zeros(3)}, {"x": (2,), "y": (3,)}
    transfer = TensorTransfer(source, target, written.__setitem__)
    value = transfer.take("a")
    with pytest.raises(StageError, match="used already"):
        transfer.take("a")
    transfer.put("x", value)
    with pytest.raises(StageError, match="written twice"):
        transfer.put("x", value)
    with pytest.raises(StageError, match=r"y has shape \[2\], but the target expects \[3\]"):
        transfer.put("y", value)
    assert list(written) == ["x"]
    with pytest.raises(StageError, match=r"unused \['b'\], not written \['y'\]"):
        transfer.finish()
    transfer.put("y", transfer.take("b"))
    transfer.finish()


@pytest.mark.parametrize(
    ("copies", "top_k", "granularity", "said"),
    [((0, 2), 3, 1, "only 2 experts"), ((0, 2), 1, 5, "granularity 5 does not divide the inner size of a layer, 192")],
)
def test_refuses_impossible_shapes(copies: tuple[int, int], top_k: int, granularity: int, said: str) -> None:
    with pytest.raises(StageError, match=said):
        expert_config(DENSE.config, copies, top_k, granularity, False)
    with pytest.raises(StageError, match="only a dense model"):
        expert_config(converted().config, (0, 2), 1, 1, False)
