"""The artifact of an alignment: vectors of all entities of both graphs, the weights of their modalities, the model.

alignment.json           the settings, the modalities, the curves of the training
entities.json            ids and labels of both sides
embeddings.safetensors   unit vectors, weights, and the densities that CSLS needs
model.safetensors        the model's parameters; absent where nothing was trained
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.base import Application, ArtifactError, Config, ExampleRequest, Resources, Servable
from stages.entity_alignment.graphs import SIDES
from stages.entity_alignment.settings import Modality, ModelSettings, TrainingSettings
from stages.json_files import read_json

if TYPE_CHECKING:
    from torch import Tensor

FACTS, ENTITIES, EMBEDDINGS, MODEL = "alignment.json", "entities.json", "embeddings.safetensors", "model.safetensors"
FACTS_LIMIT_BYTES = 64 << 20
FACTORY = "stages.entity_alignment.http:create"
EXAMPLE_ENTITIES = 3
CHECKED_ROWS = 1 << 14  # at once: the vectors are mapped from their file, and may be larger than the memory


class AlignmentFacts(Config):
    """How an alignment was found."""

    model: ModelSettings
    training: TrainingSettings
    modalities: tuple[Modality, ...] = Field(min_length=1)
    entities: tuple[PositiveInt, PositiveInt]
    width: PositiveInt  # of the joint vectors
    train_pairs: NonNegativeInt  # at the end
    promoted_pairs: NonNegativeInt  # of them, proposed by the model
    best_epoch: NonNegativeInt
    losses: tuple[float, ...]  # mean of each epoch
    selections: tuple[tuple[int, float], ...]  # (epoch, MRR) on the links for selection


@dataclass(frozen=True)
class EntityAlignment(Servable):
    """Two graphs' entities in one space. Served, it aligns entities of either graph with the other's."""

    @cached_property
    def facts(self) -> AlignmentFacts:
        return read_json(self.path / FACTS, AlignmentFacts, "a description of an alignment", FACTS_LIMIT_BYTES)

    def names(self) -> dict[str, list[str]]:
        """The ids ("left", "right") and labels ("left_labels", "right_labels") of the entities."""
        path = self.path / ENTITIES
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}") from None
        expected = dict(zip(SIDES, self.facts.entities, strict=True))
        for side, count in expected.items():
            for key in (side, f"{side}_labels"):
                if not isinstance(found.get(key), list) or len(found[key]) != count:
                    raise ArtifactError(f"{path}: expected {count} names in {key!r}, as {FACTS} says")
        return dict(found)

    def tensors(self) -> dict[str, Tensor]:
        """For each side: unit vectors [entities, width], `_weights` [entities, modalities], `_densities` [entities]."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path, facts = self.path / EMBEDDINGS, self.facts
        try:
            found: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}") from None
        shapes: dict[str, tuple[int, ...]] = {}
        for side, count in zip(SIDES, facts.entities, strict=True):
            shapes |= {side: (count, facts.width), f"{side}_densities": (count,)}
            shapes[f"{side}_weights"] = (count, len(facts.modalities))
        if {name: tuple(value.shape) for name, value in found.items()} != shapes:
            raise ArtifactError(f"{path}: its tensors are not those that {FACTS} promises")
        if not all(bool(torch.isfinite(part).all()) for value in found.values() for part in value.split(CHECKED_ROWS)):
            raise ArtifactError(f"{path} has a value that is not finite")
        return found

    def parameters(self) -> dict[str, Tensor] | None:
        """The model's parameters; None where nothing was trained."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if self.facts.model.fusion == "names":
            return None
        try:
            found: dict[str, Tensor] = load_file(self.path / MODEL)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{self.path / MODEL} cannot be read: {error}") from None
        return found

    def application(self) -> Application:
        """POST /v1/align, from this directory."""
        size = sum(self.facts.entities) * self.facts.width * 4
        return Application(
            name="align",
            factory=FACTORY,
            arguments={"alignment": str(self.path.absolute())},
            resources=Resources(memory_bytes=2 * size + (512 << 20)),
        )

    def examples(self) -> tuple[ExampleRequest, ...]:
        """The first entities of both sides, and an entity that no graph has."""
        names = self.names()
        asked = [
            ExampleRequest("POST", "/v1/align", {"entities": names[side][:EXAMPLE_ENTITIES], "from": side, "k": 3})
            for side in SIDES
        ]
        return (*asked, ExampleRequest("POST", "/v1/align", {"entities": ["\n"]}, status=404))

    def check(self) -> None:
        self.tensors()
        self.names()
        self.parameters()

    def describe(self) -> Mapping[str, object]:
        facts = self.facts
        return {
            "fusion": facts.model.fusion,
            "modalities": list(facts.modalities),
            "entities": list(facts.entities),
            "train pairs": facts.train_pairs,
            "promoted pairs": facts.promoted_pairs,
            "best epoch": facts.best_epoch,
        }


def write(
    path: Path,
    facts: AlignmentFacts,
    names: Mapping[str, list[str]],
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor] | None,
) -> EntityAlignment:
    """Write an alignment into the directory `path`."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in tensors.items()}, path / EMBEDDINGS)
    if parameters is not None:
        save_file({name: value.contiguous() for name, value in parameters.items()}, path / MODEL)
    (path / ENTITIES).write_text(json.dumps(dict(names), ensure_ascii=False), encoding="utf-8")
    (path / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
    return EntityAlignment(path)
