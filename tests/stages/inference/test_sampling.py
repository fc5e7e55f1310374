import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.inference.sampling import Sampling, _nucleus, logprobs, sample


def draws(logits: list[float], sampling: Sampling, count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([logits])
    return torch.bincount(
        torch.tensor([sample(rows, [sampling], [generator])[0] for _ in range(count)]), minlength=len(logits)
    )


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    shares = draws(probabilities.log().tolist(), Sampling()) / 4000
    assert (shares - probabilities).abs().max() < 0.03


def test_temperature_sharpens() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    shares = draws(probabilities.log().tolist(), Sampling(temperature=0.5)) / 4000
    assert (shares - probabilities**2 / (probabilities**2).sum()).abs().max() < 0.03


def test_top_k_and_top_p_leave_the_rest_out() -> None:
    logits = torch.tensor([0.05, 0.5, 0.3, 0.15]).log().tolist()
    assert draws(logits, Sampling(top_k=2), 500).tolist()[0::3] == [0, 0]
    assert draws(logits, Sampling(top_p=0.8), 500).tolist()[0::3] == [0, 0]
    assert draws(logits, Sampling(top_p=0.81), 500).tolist()[3] > 0
    assert draws(logits, Sampling(top_p=0.01), 100).tolist() == [0, 100, 0, 0]
    assert draws(logits, Sampling(top_p=0.6, top_k=3), 500).tolist()[0::3] == [0, 0]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=30), st.floats(1e-12, 100), st.floats(1e-9, 1))
def test_a_draw_is_always_a_token_and_tiny_temperatures_are_greedy(
    logits: list[float], temperature: float, top_p: float
) -> None:
    rows = torch.tensor([logits])
    token = sample(rows, [Sampling(temperature=temperature, top_p=top_p)], [Sampling(seed=1).generator()])[0]
    assert 0 <= token < len(logits)
    coldest = sample(rows, [Sampling(temperature=1e-300)], [Sampling(seed=1).generator()])[0]
    assert logits[coldest] == max(logits)


@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9, 0.999, 1 - 1e-9])
@pytest.mark.parametrize("spread", [0.0, 0.1, 5.0])
def test_the_nucleus_is_what_sorting_everything_gives(top_p: float, spread: float) -> None:
    probabilities = (spread * torch.randn(3000, generator=torch.Generator().manual_seed(1))).double().softmax(0)
    ordered = probabilities.sort(descending=True).values
    expected = int((ordered.cumsum(0) - ordered < top_p).sum())
    found, tokens = _nucleus(probabilities, top_p)
    assert len(found) == len(set(tokens.tolist())) == expected
    assert torch.equal(found, ordered[:expected])
    assert torch.equal(probabilities[tokens], found)


def test_a_seed_gives_the_same_tokens_whatever_the_batch() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    seeded, other = Sampling(seed=7), Sampling(seed=8)
    alone = sample(logits[1:2], [seeded], [seeded.generator()])
    together = sample(
        logits, [other, seeded, Sampling(temperature=0)], [one.generator() for one in (other, seeded, other)]
    )
    assert together[1] == alone[0]
    assert together[2] == int(logits[2].argmax())


def test_all_64_bits_of_a_seed_count() -> None:
    seeds = (-(2**63), -(2**32), -2, -1, 0, 1, 2, 2**32, 2**32 + 1, 2**63 - 1)
    drawn = {float(torch.rand(1, generator=Sampling(seed=seed).generator())) for seed in seeds}
    assert len(drawn) == len(seeds)


def test_without_a_seed_every_sequence_is_different() -> None:
    drawn = {float(torch.rand(1, generator=Sampling().generator())) for _ in range(5)}
    assert len(drawn) > 1


def test_a_token_whose_logit_is_minus_infinity_is_never_drawn_and_changes_no_other_draw() -> None:
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
    excluded = logits.masked_fill(torch.arange(20) >= 15, -torch.inf)
    pairs = [
        [sample(rows, [Sampling()], [Sampling(seed=seed).generator()])[0] for rows in (logits, excluded)]
        for seed in range(300)
    ]
    assert all(drawn < 15 for _, drawn in pairs)
    assert all(free == drawn for free, drawn in pairs if free < 15)
    assert any(free >= 15 for free, _ in pairs)


def test_logprobs_are_of_the_unmodified_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, -torch.inf, 0.0]])
    first, second = logprobs(logits, [1, 1], 2)
    expected = logits[0].log_softmax(-1).tolist()
    assert first.chosen == pytest.approx(expected[1])
    assert [token for token, _ in first.top] == [2, 1]
    assert [value for _, value in first.top] == pytest.approx([expected[2], expected[1]])
    assert second.chosen == -9999.0
    assert logprobs(logits, [0, 0], 0)[0].top == ()
