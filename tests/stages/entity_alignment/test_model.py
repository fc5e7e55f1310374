"""The whole model against numbers that the released code of MEAformer produced, and its independence of numbering.

tests/data/meaformer_released.json was made by running the authors' code (github.com/zjukg/MEAformer, MIT, commit
a247a49) on a random pair of 28 entities with width 8, on the CPU, without dropout: the weights that both used, and the
loss, weights, joint vectors and gradients that the authors' code computed. Names were absent there, so the constant
2 * (s_name + s_character), which that code adds for absent modalities, is subtracted from its loss.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.base import StageError
from stages.entity_alignment.graphs import Pair, Vectors
from stages.entity_alignment.losses import Losses
from stages.entity_alignment.modalities import Inputs, character_bags, inputs_of, relation_bags
from stages.entity_alignment.model import AlignmentModel, embedded
from stages.entity_alignment.settings import Fusion, ModelSettings, TrainingSettings

FIXTURE = Path(__file__).parents[2] / "data" / "meaformer_released.json"


@cache
def released() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FIXTURE.read_text())
    return found


def pair_of(values: dict[str, Any]) -> Pair:
    left, right = values["entities"]
    images = np.array(values["images"], np.float32)
    return Pair(
        entities=([f"a{i}" for i in range(left)], [f"b{i}" for i in range(right)]),
        labels=([""] * left, [""] * right),
        triples=np.array(values["triples"]),
        attributes=np.array(values["attributes"]),
        links=np.array(values["batch"]),
        splits=np.zeros(len(values["batch"]), np.int64),
        vectors={"image": Vectors(np.arange(left + right), images)},
    )


def model_of(values: dict[str, Any], inputs: Inputs, fusion: Fusion = "meta") -> AlignmentModel:
    model = AlignmentModel(ModelSettings(width=8, intermediate=12, fusion=fusion), inputs).eval()
    if fusion == "meta":
        model.load_state_dict({name: torch.tensor(one) for name, one in values["parameters"].items()})
    return model


def test_equals_the_released_code() -> None:
    values = released()
    inputs = inputs_of(pair_of(values), None)
    model = model_of(values, inputs)
    settings = TrainingSettings(uncertainty="as_released")
    loss = Losses(ModelSettings(width=8), settings, inputs).of(model, torch.tensor(values["batch"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(values["loss"], rel=1e-6)
    with torch.no_grad():
        _, fused = model(inputs, torch.arange(inputs.entities))
    torch.testing.assert_close(fused.weights, torch.tensor(values["weights"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(fused.joint, torch.tensor(values["joint"]), atol=1e-5, rtol=0)
    parameters = dict(model.named_parameters())
    for name, gradient in values["gradients"].items():
        torch.testing.assert_close(parameters[name].grad, torch.tensor(gradient), atol=1e-5, rtol=1e-4)


def loss_of(model: AlignmentModel, inputs: Inputs, batch: torch.Tensor, uncertainty: Any) -> float:
    settings = TrainingSettings(uncertainty=uncertainty)
    return float(Losses(ModelSettings(width=8), settings, inputs).of(model, batch).detach())


def test_by_modality_pairs_each_token_with_its_own_uncertainty() -> None:
    values = released()
    inputs = inputs_of(pair_of(values), None)
    model, batch = model_of(values, inputs), torch.tensor(values["batch"])
    losses = {choice: loss_of(model, inputs, batch, choice) for choice in ("by_modality", "as_released")}
    assert losses["by_modality"] != pytest.approx(losses["as_released"], rel=1e-4)
    with torch.no_grad():
        model.log_variances.fill_(0.2)
    same = [loss_of(model, inputs, batch, choice) for choice in ("by_modality", "as_released")]
    assert same[0] == pytest.approx(same[1], rel=1e-6)


def test_released_uncertainties_need_the_four_modalities() -> None:
    inputs = inputs_of(pair_of(released()), ("graph", "relation"))
    with pytest.raises(StageError, match="as_released is defined for image, attribute, relation and graph together"):
        Losses(ModelSettings(), TrainingSettings(uncertainty="as_released"), inputs)


@pytest.mark.parametrize("loss", ["plain", "modality_adaptive"])
@pytest.mark.parametrize("fusion", ["meta", "global", "concatenation", "early"])
def test_every_fusion_and_loss_has_finite_gradients(fusion: Fusion, loss: Any) -> None:
    values = released()
    inputs = inputs_of(pair_of(values), None)
    torch.manual_seed(0)
    model = model_of(values, inputs, fusion)
    settings = ModelSettings(width=8, fusion=fusion)
    Losses(settings, TrainingSettings(loss=loss), inputs).of(model, torch.tensor(values["batch"])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), name


def test_replayed_negatives_enter_the_loss_once_no_new_entities_appear() -> None:
    values = released()
    inputs = inputs_of(pair_of(values), None)
    model, batch = model_of(values, inputs), torch.tensor(values["batch"])
    losses = Losses(ModelSettings(width=8), TrainingSettings(replay=True), inputs)
    assert losses.replay is not None
    first = float(losses.of(model, batch[:5]).detach())
    assert not losses.replay.ready
    losses.of(model, batch[4:])
    losses.of(model, batch[:5])
    assert losses.replay.ready, "the second time, no new entity was seen"
    seen = losses.replay.negatives[batch.flatten()]
    assert (seen >= 0).all()
    assert not (losses.replay.negatives[batch[:, 0]] == batch[:, 0]).any()
    assert not (losses.replay.negatives[batch[:, 0]] == batch[:, 1]).any()
    outside = torch.tensor([entity for entity in range(9) if entity not in batch[:5, 0].tolist()])
    losses.replay.negatives[batch[:5, 0]] = outside[0]
    assert float(losses.of(model, batch[:5]).detach()) > first, "one more negative"


def test_the_numbers_of_the_entities_mean_nothing() -> None:
    values = released()
    pair = pair_of(values)
    random = np.random.default_rng(0)
    order = np.concatenate([random.permutation(14), 14 + random.permutation(14)])  # the new number of each entity
    images = np.empty_like(pair.vectors["image"].values)
    images[order] = pair.vectors["image"].values
    renumbered = Pair(
        pair.entities, pair.labels,
        np.column_stack([order[pair.triples[:, 0]], pair.triples[:, 1], order[pair.triples[:, 2]]]),
        np.column_stack([order[pair.attributes[:, 0]], pair.attributes[:, 1]]),
        order[pair.links], pair.splits, {"image": Vectors(np.arange(28), images)},
    )  # fmt: skip
    inputs, other = inputs_of(pair, None), inputs_of(renumbered, None)
    model, moved = model_of(values, inputs), model_of(values, other)
    with torch.no_grad():
        moved.structure.embedding[torch.from_numpy(order)] = model.structure.embedding
    joint, weights = embedded(model, inputs, torch.arange(28))
    found, found_weights = embedded(moved, other, torch.from_numpy(order))
    torch.testing.assert_close(found, joint)
    torch.testing.assert_close(found_weights, weights)


def test_bags_of_relations_and_characters() -> None:
    triples = np.array([(0, 0, 1), (0, 0, 2), (2, 1, 0)])
    bags = relation_bags(triples, 3)
    assert bags.places.matrix(bags.values).to_dense().tolist() == [[2, 1], [1, 0], [1, 1]]
    bags = character_bags(["ab abab", "", "ba x"])  # bigrams ab, ba
    dense = bags.places.matrix(bags.values).to_dense()
    torch.testing.assert_close(dense[0], torch.tensor([3, 1]) / torch.tensor(10).sqrt())
    assert dense[1:].tolist() == [[0, 0], [0, 1]]


def test_an_absent_modality_is_named() -> None:
    with pytest.raises(
        StageError, match="the pair has no name and no character; it has image, attribute, relation, graph"
    ):
        inputs_of(pair_of(released()), ("graph", "name", "character"))


def test_entities_without_an_image_get_a_random_one() -> None:
    values = released() | {"images": released()["images"]}
    pair = pair_of(values)
    some = Vectors(np.arange(10), pair.vectors["image"].values[:10])
    filled = inputs_of(Pair(**{**vars(pair), "vectors": {"image": some}}), ("image",)).features["image"]
    assert isinstance(filled, torch.Tensor)
    torch.testing.assert_close(filled.norm(dim=1), torch.ones(28))
    assert len(filled.unique(dim=0)) == 28
