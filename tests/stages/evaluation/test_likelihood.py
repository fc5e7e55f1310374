"""Every token is scored once, with the context that it should have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluation.likelihood import document_nats, windows
from tests.stages.model.models import random_tokens, small_config, small_model


@settings(max_examples=300)
@given(st.lists(st.integers(0, 40), max_size=5), st.integers(1, 12), st.data())
def test_windows_score_each_target_once_within_the_context(
    lengths: list[int], context: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, context - 1))
    scored = {(document, target): 0 for document, length in enumerate(lengths) for target in range(length)}
    for window in windows(lengths, context, overlap):
        assert 0 <= window.start <= window.scored < window.stop
        assert window.stop - window.start <= context
        assert window.scored - window.start >= min(overlap, window.scored)
        for target in range(window.scored, window.stop):
            scored[window.document, target] += 1
    assert set(scored.values()) <= {1}


def test_an_overlap_as_long_as_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit a context of 4"):
        windows([10], 4, 4)


def test_short_documents_cost_what_one_forward_pass_says() -> None:
    model = small_model(small_config(context_length=64))
    documents = [random_tokens(1, length, seed=length)[0].tolist() for length in (1, 7, 64, 30)]
    found = document_nats(model, [*documents, []], start=[2], end_of_text=2, overlap=8, batch_tokens=128)
    for document, nats in zip(documents, found, strict=False):
        logits = model(torch.tensor([[2, *document[:-1]]]))[0].log_softmax(-1).detach()
        expected = -sum(float(logits[place, token]) for place, token in enumerate(document))
        assert nats == pytest.approx(expected, rel=1e-4)
    assert found[-1] == 0


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_long_documents_cost_what_their_windows_say(batch_tokens: int) -> None:
    model = small_model(small_config(context_length=16))
    documents = [random_tokens(1, length, seed=length)[0].tolist() for length in (50, 17)]
    found = document_nats(model, documents, start=[2], end_of_text=2, overlap=4, batch_tokens=batch_tokens)
    for document, nats in zip(documents, found, strict=True):
        stream = [2, *document]
        expected = 0.0
        for target in range(len(document)):
            # The window that a target is scored in: the first 16 targets, then steps of 12.
            stop = min(len(document), 16 if target < 16 else 16 + 12 * ((target - 16) // 12 + 1))
            inputs = stream[max(0, stop - 16) : target + 1]
            expected -= float(model(torch.tensor([inputs]))[0, -1].log_softmax(-1)[document[target]].detach())
        assert nats == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("start", [[], [1], [1, 3]])
def test_a_document_begins_as_in_training(start: list[int]) -> None:
    model = small_model(small_config(context_length=64))
    documents = [random_tokens(1, length, seed=length)[0].tolist() for length in (1, 7, 40)]
    found = document_nats(model, documents, start=start, end_of_text=2, overlap=8)
    for document, nats in zip(documents, found, strict=True):
        stream = [*start, *document]
        logits = model(torch.tensor([stream]))[0].log_softmax(-1).detach()
        expected = -sum(
            float(logits[place, stream[place + 1]]) for place in range(max(len(start) - 1, 0), len(stream) - 1)
        )
        if not start:  # only the first token is predicted from the end of the text before
            expected -= float(model(torch.tensor([[2]]))[0, 0].log_softmax(-1)[document[0]].detach())
        assert nats == pytest.approx(expected, rel=1e-4)


def test_progress_ends_at_the_number_of_windows() -> None:
    seen: list[tuple[int, int]] = []
    model = small_model(small_config(context_length=16))
    progress = lambda *values: seen.append(values)  # noqa: E731
    document_nats(model, [[5] * 40], start=[2], end_of_text=2, overlap=0, batch_tokens=16, progress=progress)
    assert seen == [(1, 3), (2, 3), (3, 3)]
