"""Two knowledge graphs in memory, as the readers make them and the stages use them.

Both graphs share one id space: the entities of the left graph come first, those of the right graph follow. Relations
and attributes are shared by name: the same name in both graphs is the same relation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Array: TypeAlias = "npt.NDArray[np.generic]"
Ints: TypeAlias = "npt.NDArray[np.int64]"
Floats: TypeAlias = "npt.NDArray[np.float32]"
Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
DENSE: tuple[Literal["image"], Literal["name"]] = ("image", "name")  # modalities that are read as vectors
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass
class Graph:
    """One graph while it is read: entities by name in the order of their ids, and statements about them."""

    entities: dict[str, int] = field(default_factory=dict)
    triples: list[tuple[int, str, int]] = field(default_factory=list)
    attributes: list[tuple[int, str]] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)  # readable names, in words separated by spaces

    def entity(self, name: str) -> int:
        """The id of an entity, which is new if the name is."""
        return self.entities.setdefault(name, len(self.entities))


@dataclass(frozen=True)
class Vectors:
    """Dense features of one modality. Entities that are not listed have none."""

    entities: Ints  # [n], distinct
    values: Floats  # [n, dimensions], finite


@dataclass(frozen=True)
class Pair:
    """Two graphs in one id space, with the links between them that are known."""

    entities: tuple[list[str], list[str]]
    labels: tuple[list[str], list[str]]  # "" where an entity has none
    triples: Ints  # [t, 3]: head, relation, tail
    attributes: Ints  # [a, 2]: entity, attribute
    links: Ints  # [l, 2]: left, right
    splits: Ints  # [l]: places in SPLITS
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    corrupted: Mapping[str, Ints] = field(default_factory=dict)  # entities whose modality is known to be noise

    @property
    def size(self) -> int:
        return len(self.entities[0]) + len(self.entities[1])

    def links_of(self, split: Split) -> Ints:
        chosen: Ints = self.links[self.splits == SPLITS.index(split)]
        return chosen

    def range_of(self, side: Side) -> range:
        middle = len(self.entities[0])
        return range(middle) if side == "left" else range(middle, self.size)


def merged(
    left: Graph,
    right: Graph,
    links: Iterable[tuple[int, int]],
    vectors: Mapping[str, Vectors] | None = None,
    corrupted: Mapping[str, Ints] | None = None,
) -> Pair:
    """Both graphs in one id space. `links` has ids of the left and of the right graph; `vectors` has merged ids.

    Every link is in the split "train"; `stages.entity_alignment.splits` assigns the others.
    """
    import numpy as np

    relations: dict[str, int] = {}
    attributes: dict[str, int] = {}
    triples, stated = [], []
    for graph, first in ((left, 0), (right, len(left.entities))):
        triples += [(h + first, relations.setdefault(r, len(relations)), t + first) for h, r, t in graph.triples]
        stated += [(e + first, attributes.setdefault(a, len(attributes))) for e, a in graph.attributes]
    linked = np.array([(a, b + len(left.entities)) for a, b in links], np.int64).reshape(-1, 2)
    return Pair(
        entities=(list(left.entities), list(right.entities)),
        labels=tuple([graph.labels.get(i, "") for i in range(len(graph.entities))] for graph in (left, right)),  # type: ignore[arg-type]
        triples=np.array(triples, np.int64).reshape(-1, 3),
        attributes=np.array(stated, np.int64).reshape(-1, 2),
        links=linked,
        splits=np.zeros(len(linked), np.int64),
        vectors=vectors or {},
        corrupted=corrupted or {},
    )
