from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.huggingface.families import write_config
from stages.huggingface.tensor_conversion import export_tensors
from stages.model import alibi, rotary
from stages.model.decoder import Decoder
from tests.stages.huggingface.reference import greedy, reference
from tests.stages.model.models import FAMILIES, SHAPES, random_tokens, shaped, small_config, small_model
from tests.stages.model.palm import palm_logits

HEADS = {6: 48, 8: 64, 12: 48, 16: 64}


@torch.inference_mode()
def check_equals_transformers(model: Decoder) -> None:
    """Compares logits, logits of a batch padded on the left, and 64 greedy tokens after one (ours with the cache)."""
    other, tokens = reference(model), random_tokens(3, 100)
    torch.testing.assert_close(model(tokens), other(tokens).logits, atol=1e-5, rtol=1e-5)
    mask = torch.ones_like(tokens)
    mask[0, :20] = 0
    mask[1, :7] = 0
    real = mask.bool()
    ours, theirs = model(tokens, attention_mask=mask), other(tokens, attention_mask=mask).logits
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-5)
    assert ours.isfinite().all()
    prompt, mask = tokens[:, :26], mask[:, :26]
    wanted = other.generate(
        prompt, attention_mask=mask, max_new_tokens=64, min_new_tokens=64, do_sample=False, pad_token_id=3
    )
    assert torch.equal(greedy(model, prompt, mask, 64), wanted)


@pytest.mark.parametrize("heads", HEADS)
def test_bloom_equals_transformers(heads: int) -> None:
    check_equals_transformers(small_model(small_config(heads=heads, hidden_size=HEADS[heads])))


@pytest.mark.parametrize("shape", FAMILIES[1:])
def test_other_families_equal_transformers(shape: str) -> None:
    check_equals_transformers(small_model(shaped(shape)))


@pytest.mark.parametrize("shape", FAMILIES)
def test_gradients_equal_those_of_transformers(shape: str) -> None:
    model = small_model(shaped(shape)).train()
    other = reference(model)
    tokens = random_tokens(2, 40)
    model(tokens).logsumexp(-1).sum().backward()
    other(tokens).logits.logsumexp(-1).sum().backward()
    family, _ = write_config(model.config)
    theirs: dict[str, torch.Tensor] = {}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    export_tensors(family, model.config, gradients, theirs.__setitem__)
    for name, parameter in other.named_parameters():
        wanted, ours = parameter.grad, theirs[name]
        if name.endswith("k_proj.bias"):  # shifts all scores of a query alike: its true gradient is 0
            assert max(ours.abs().max(), wanted.abs().max()) < 1e-4
            continue
        torch.testing.assert_close(ours, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-4, msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_packed_documents_never_see_each_other(shape: str) -> None:
    model = small_model(shaped(shape))
    tokens = random_tokens(2, 96)
    documents = torch.tensor([[0] * 40 + [1] * 56, [7] * 10 + [3] * 80 + [4] * 6])
    packed = model(tokens, documents=documents)
    for row in range(2):
        for document in documents[row].unique():
            inside = documents[row] == document
            alone = model(tokens[row, inside][None])
            torch.testing.assert_close(packed[row, inside][None], alone, atol=1e-5, rtol=0)
            disturbed = torch.where(inside, (tokens[row] + 11) % 300, tokens[row])
            other = model(torch.stack([disturbed, tokens[1 - row]]), documents=documents[[row, 1 - row]])
            assert torch.equal(other[0, ~inside], packed[row, ~inside])
            assert not torch.equal(other[0, inside], packed[row, inside])


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_padding_and_documents_together(shape: str) -> None:
    model = small_model(shaped(shape))
    tokens, documents, mask = random_tokens(1, 30), torch.tensor([[0] * 12 + [1] * 18]), torch.ones(1, 30)
    mask[0, :4] = 0
    both = model(tokens, documents=documents, attention_mask=mask)
    torch.testing.assert_close(both[:, 4:12], model(tokens[:, 4:12]), atol=1e-5, rtol=0)
    torch.testing.assert_close(both[:, 12:], model(tokens[:, 12:]), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_chunked_head_equals_whole() -> None:
    model, tokens = small_model(), random_tokens(2, 20)
    hidden = model.hidden_states(tokens)
    assert hidden.shape == (2, 20, 48)
    torch.testing.assert_close(torch.cat([model.logits(part) for part in hidden.split(7, 1)], 1), model(tokens))


def test_slopes() -> None:
    assert alibi.slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi.slopes(6) == [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    assert alibi.slopes(12)[8:] == pytest.approx([0.70710678, 0.35355339, 0.17677670, 0.08838835])
    many = alibi.slopes(112)
    assert [many[0], many[63], many[64], many[-1]] == pytest.approx(
        [0.9170040, 0.00390625, 0.9576033, 0.0163168], rel=1e-5
    )


@given(heads=st.integers(1, 130))
@settings(max_examples=50)
def test_slopes_are_distinct_and_fall_within_each_half(heads: int) -> None:
    found = alibi.slopes(heads)
    assert len(found) == len(set(found)) == heads
    lower = 1 << (heads.bit_length() - 1)
    assert found[:lower] == sorted(found[:lower], reverse=True)
    assert all(2**-8 <= slope < 1 for slope in found)


@torch.inference_mode()
def test_palm_equals_its_formulas() -> None:
    model, tokens = small_model(shaped("palm")), random_tokens(2, 60)
    torch.testing.assert_close(model(tokens), palm_logits(model, tokens), atol=1e-5, rtol=1e-5)


def test_learned_positions_end() -> None:
    with pytest.raises(ValueError, match="129 tokens, but the model only 128 positions"):
        small_model(shaped("opt"))(random_tokens(1, 129))


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 1000))
@settings(max_examples=30)
def test_rotary_products_depend_only_on_the_distance(first: int, second: int, shift: int) -> None:
    config = shaped("llama3")
    query, key = torch.randn(
        2, 1, 1, 1, config.head_size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def at(position: int) -> rotary.Rotation:
        return rotary.rotation(config, torch.tensor([[position]]), torch.float64)

    near, far = (
        (rotary.rotate(query, at(first + by)) * rotary.rotate(key, at(second + by))).sum() for by in (0, shift)
    )
    torch.testing.assert_close(near, far, atol=1e-3, rtol=0)  # angles are fp32
    assert torch.equal(rotary.rotate(query, at(0)), query)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_bfloat16_is_near_fp32(shape: str) -> None:
    model, tokens = small_model(shaped(shape)), random_tokens(2, 100)
    exact = model(tokens)
    near = model.bfloat16()(tokens).float()
    assert ((near - exact).norm() / exact.norm()) < 0.03
