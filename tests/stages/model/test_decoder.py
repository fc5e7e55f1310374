from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BloomConfig, BloomForCausalLM

from stages.model import alibi
from stages.model.decoder import Decoder
from tests.stages.model.models import random_tokens, small_config, small_model

HEADS = {6: 48, 8: 64, 12: 48, 16: 64}


def reference(model: Decoder) -> BloomForCausalLM:
    """The same model as `transformers` has it."""
    c = model.config
    config = BloomConfig(vocab_size=c.vocab_size, hidden_size=c.hidden_size, n_layer=c.layers, n_head=c.heads)
    other = BloomForCausalLM(config).eval()
    weights = {"transformer." + name.replace("blocks.", "h."): value for name, value in model.state_dict().items()}
    other.load_state_dict(weights | {"lm_head.weight": weights["transformer.word_embeddings.weight"]}, strict=True)
    return other


@pytest.mark.parametrize("heads", HEADS)
@torch.inference_mode()
def test_equals_transformers(heads: int) -> None:
    model = small_model(small_config(heads=heads, hidden_size=HEADS[heads]))
    other = reference(model)
    tokens = random_tokens(3, 100)
    torch.testing.assert_close(model(tokens), other(tokens).logits, atol=1e-5, rtol=0)
    mask = torch.ones_like(tokens)
    mask[0, :20] = 0
    mask[1, :7] = 0
    real = mask.bool()
    ours, theirs = model(tokens, attention_mask=mask), other(tokens, attention_mask=mask).logits
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=0)
    assert ours.isfinite().all()


@pytest.mark.parametrize("heads", [6, 8])
@torch.inference_mode()
def test_generates_the_tokens_that_transformers_does(heads: int) -> None:
    model = small_model(small_config(heads=heads, hidden_size=HEADS[heads]))
    tokens, mask = random_tokens(2, 12), torch.ones(2, 12, dtype=torch.int64)
    mask[0, :5] = 0
    wanted = reference(model).generate(
        tokens, attention_mask=mask, max_new_tokens=64, min_new_tokens=64, do_sample=False, pad_token_id=3
    )
    for _ in range(64):
        logits = model(tokens, attention_mask=mask)[:, -1]
        logits[:, model.config.eos_token_id] = -torch.inf  # min_new_tokens does so
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
        mask = torch.cat([mask, mask.new_ones(2, 1)], 1)
    assert torch.equal(tokens, wanted)


def test_gradients_equal_those_of_transformers() -> None:
    model = small_model().train()
    other = reference(model).train()
    tokens = random_tokens(2, 40)
    model(tokens).logsumexp(-1).sum().backward()
    other(tokens).logits.logsumexp(-1).sum().backward()
    theirs = {name.removeprefix("transformer."): p.grad for name, p in other.named_parameters()}
    for name, parameter in model.named_parameters():
        wanted = theirs[name.replace("blocks.", "h.")]
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-4, msg=name)


def test_parameters_are_as_many_as_the_config_says() -> None:
    config = small_config(feed_forward_size=100)
    assert sum(p.numel() for p in Decoder(config).parameters()) == config.parameters


@torch.inference_mode()
def test_packed_documents_never_see_each_other() -> None:
    model = small_model()
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


@torch.inference_mode()
def test_padding_and_documents_together() -> None:
    model = small_model()
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
@settings(max_examples=50, deadline=None)
def test_slopes_are_distinct_and_fall_within_each_half(heads: int) -> None:
    found = alibi.slopes(heads)
    assert len(found) == len(set(found)) == heads
    lower = 1 << (heads.bit_length() - 1)
    assert found[:lower] == sorted(found[:lower], reverse=True)
    assert all(2**-8 <= slope < 1 for slope in found)


@torch.inference_mode()
def test_bfloat16_is_near_fp32() -> None:
    model, tokens = small_model(), random_tokens(2, 100)
    exact = model(tokens)
    near = model.bfloat16()(tokens).float()
    assert ((near - exact).norm() / exact.norm()) < 0.03
