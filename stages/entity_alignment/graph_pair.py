"""The artifact of a pair of knowledge graphs.

pair.json           counts, the modalities that the pair has and lacks, and the problems that were skipped
entities.json       ids and labels of both sides
graph.safetensors   triples, attributes, links with their splits, dense features
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt, ValidationError

from stages.base import Artifact, ArtifactError, Config
from stages.entity_alignment.graphs import SPLITS, Pair, Vectors

FACTS, ENTITIES, TENSORS = "pair.json", "entities.json", "graph.safetensors"


class PairFacts(Config):
    """What a pair holds."""

    source: str  # where it comes from, in a few words
    entities: tuple[PositiveInt, PositiveInt]
    triples: tuple[NonNegativeInt, NonNegativeInt]
    relations: NonNegativeInt
    attributes: NonNegativeInt
    links: Mapping[str, NonNegativeInt]  # by split
    modalities: Mapping[str, NonNegativeInt]  # entities that have something of each
    absent: Mapping[str, str]  # modalities that the pair lacks, each with the reason
    problems: tuple[str, ...] = ()  # what was skipped


@dataclass(frozen=True)
class GraphPair(Artifact):
    """Two knowledge graphs, and links between their entities in three splits."""

    is_dataset = True

    @cached_property
    def facts(self) -> PairFacts:
        path = self.path / FACTS
        try:
            return PairFacts.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ArtifactError(f"{path} does not describe a pair: {error.errors()[0]['msg']}") from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None

    def load(self) -> Pair:
        """The pair in memory. Raises ArtifactError if the files do not fit together."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = load_file(self.path / TENSORS)
            names = json.loads((self.path / ENTITIES).read_bytes())
            pair = Pair(
                entities=(names["left"], names["right"]),
                labels=(names["left_labels"], names["right_labels"]),
                triples=tensors["triples"],
                attributes=tensors["attributes"],
                links=tensors["links"],
                splits=tensors["splits"],
                vectors={
                    key.removeprefix("vectors."): Vectors(tensors[key.replace("vectors.", "of.")], value)
                    for key, value in tensors.items()
                    if key.startswith("vectors.")
                },
                corrupted={
                    key.removeprefix("corrupted."): value
                    for key, value in tensors.items()
                    if key.startswith("corrupted.")
                },
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{self.path} does not hold a pair: {error}") from None
        self._fits(pair)
        return pair

    def _fits(self, pair: Pair) -> None:
        import numpy as np

        sizes = tuple(len(one) for one in pair.entities)
        if sizes != self.facts.entities or sizes != tuple(len(one) for one in pair.labels):
            raise ArtifactError(f"{self.path}: {ENTITIES} has {sizes} entities, {FACTS} has {self.facts.entities}")
        for name, ids in (("triples", pair.triples[:, [0, 2]]), ("attributes", pair.attributes[:, :1])):
            if ids.size and not 0 <= ids.min() <= ids.max() < pair.size:
                raise ArtifactError(f"{self.path / TENSORS}: {name} name an entity that does not exist")
        left, right = pair.range_of("left"), pair.range_of("right")
        if any(int(a) not in left or int(b) not in right for a, b in pair.links):
            raise ArtifactError(f"{self.path / TENSORS}: a link is not between the two graphs")
        if len(pair.splits) != len(pair.links):
            raise ArtifactError(f"{self.path / TENSORS}: expected a split for each of {len(pair.links)} links")
        for modality, vectors in pair.vectors.items():
            if len(vectors.entities) != len(vectors.values) or not np.isfinite(vectors.values).all():
                raise ArtifactError(
                    f"{self.path / TENSORS}: the features of {modality} are not one finite row an entity"
                )

    def check(self) -> None:
        self.load()

    def describe(self) -> Mapping[str, object]:
        facts = self.facts
        return {
            "source": facts.source,
            "entities": list(facts.entities),
            "triples": list(facts.triples),
            "links": dict(facts.links),
            "modalities": dict(facts.modalities),
            "absent": dict(facts.absent),
        }


def write(path: Path, pair: Pair, facts: PairFacts) -> GraphPair:
    """Write a pair into the directory `path`."""
    import numpy as np
    from safetensors.numpy import save_file

    tensors = {
        "triples": pair.triples,
        "attributes": pair.attributes,
        "links": pair.links,
        "splits": pair.splits,
        **{f"vectors.{name}": one.values for name, one in pair.vectors.items()},
        **{f"of.{name}": one.entities for name, one in pair.vectors.items()},
        **{f"corrupted.{name}": one for name, one in pair.corrupted.items()},
    }
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path / TENSORS)
    names = {
        "left": pair.entities[0], "right": pair.entities[1],
        "left_labels": pair.labels[0], "right_labels": pair.labels[1],
    }  # fmt: skip
    (path / ENTITIES).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    (path / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
    return GraphPair(path)


def facts_of(pair: Pair, source: str, problems: tuple[str, ...] = ()) -> PairFacts:
    """The facts of a pair in memory."""
    import numpy as np

    left = len(pair.entities[0])
    modalities = {
        "graph": len(np.unique(pair.triples[:, [0, 2]])),
        "attribute": len(np.unique(pair.attributes[:, 0])),
        "character": sum(bool(label) for labels in pair.labels for label in labels),
        **{name: len(one.entities) for name, one in pair.vectors.items()},
    }
    modalities["relation"] = modalities["graph"]
    reasons = {
        "graph": "there are no triples",
        "relation": "there are no triples",
        "attribute": "there are no attributes",
        "character": "no entity has a readable name",
        "image": "no features were given",
        "name": "no features were given",
    }
    return PairFacts(
        source=source,
        entities=(left, pair.size - left),
        triples=(int((pair.triples[:, 0] < left).sum()), int((pair.triples[:, 0] >= left).sum())),
        relations=len(np.unique(pair.triples[:, 1])),
        attributes=len(np.unique(pair.attributes[:, 1])),
        links={split: int((pair.splits == place).sum()) for place, split in enumerate(SPLITS)},
        modalities={name: count for name, count in modalities.items() if count},
        absent={name: reason for name, reason in reasons.items() if not modalities.get(name)},
        problems=problems,
    )
