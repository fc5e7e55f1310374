"""Held-out samples are spread over the validation split, and the loss is that of the definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.artifacts.held_out_loss import held_out_batches, held_out_loss
from stages.artifacts.tokens import TokenDataset
from stages.base import StageError
from tests.stages.model.models import small_config, small_model
from tests.stages.training.texts import token_set


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    texts = [f"the number {number} and what comes after {number}" for number in range(60)]
    return token_set(tmp_path_factory.mktemp("tokens") / "set", {"train": texts, "validation": texts}, 300)


@pytest.mark.parametrize("samples", [1, 5, 8, 11, 10**6])
def test_samples_are_spread_evenly_in_batches(dataset: TokenDataset, samples: int) -> None:
    split = dataset.split("validation")
    count = (split.length - 1) // 16
    batches = list(held_out_batches(dataset, 16, samples))
    used = min(samples, count)
    assert [len(inputs) for inputs, _, _ in batches] == [8] * (used // 8) + [used % 8] * (used % 8 > 0)
    places = [index * count // used for index in range(used)]
    wanted = torch.stack(
        [torch.tensor(np.asarray(split.tokens[place * 16 : place * 16 + 17]).tolist()) for place in places]
    )
    assert torch.cat([inputs for inputs, _, _ in batches]).equal(wanted[:, :-1])
    assert torch.cat([targets for _, targets, _ in batches]).equal(wanted[:, 1:])


def test_the_loss_is_the_mean_over_all_targets(dataset: TokenDataset) -> None:
    model = small_model(small_config(vocab_size=dataset.vocab_size))
    progress: list[int] = []
    found = held_out_loss(model, dataset, 16, 11, progress.append)
    losses = []
    with torch.inference_mode():
        for inputs, targets, documents in held_out_batches(dataset, 16, 11):
            chosen = model(inputs, documents=documents).log_softmax(-1).gather(-1, targets[..., None])
            losses.append(-chosen.flatten())
    assert found == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert progress == [8, 3]


def test_a_split_without_a_sample_is_refused(dataset: TokenDataset, tmp_path: Path) -> None:
    length = dataset.split("validation").length
    assert len(list(held_out_batches(dataset, length - 1, 5))) == 1
    with pytest.raises(StageError, match=rf"has {length} tokens, fewer than one sample of {length}.*sequence_length"):
        list(held_out_batches(dataset, length, 5))
