"""Where a pair of graphs comes from: files, a folder of a benchmark, emoji, or a simulation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stages.base import Config, External, StageError
from stages.entity_alignment.feature_files import ENDINGS, encoder_files, id_list, image_files

Share = Annotated[float, Field(ge=0, le=1)]


class _Files(External):
    """Content of named files. In YAML, one of these with a path alone is written as that path."""

    path: Path

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    def files(self) -> Iterator[Path]:
        """Every file that is read. Raises StageError if the layout is not a known one."""
        yield self.path

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        total = hashlib.sha256()
        for path in self.files():
            if not path.is_file():
                raise StageError(f"{path} is not a file: give the path of one that exists")
            total.update(f"{path.name}\0{digest_file(path)}\n".encode())
        total.update(self.model_dump_json(exclude={"path", "names", "attributes"}).encode())
        return total.hexdigest()


class GraphFile(_Files):
    """A graph: TSV (head, relation, tail) or N-Triples (.nt), plain or .gz, and a file of attributes if it has one."""

    attributes: Path | None = None

    def files(self) -> Iterator[Path]:
        yield from filter(None, (self.path, self.attributes))


class LinkFile(_Files):
    """Links between two graphs: "left<TAB>right" in each line."""


class FeatureFile(_Files):
    """Dense features of the entities of one graph: .npy, .npz or .safetensors with ids, or a folder of images."""

    def files(self) -> Iterator[Path]:
        if self.path.is_dir():
            yield from image_files(self.path)
            return
        if self.path.suffix not in ENDINGS:
            raise StageError(
                f"{self.path}: expected a folder of images, or a file that ends with {', '.join(ENDINGS)}; pickles are "
                "not read"
            )
        yield self.path
        if self.path.suffix != ".npz":
            yield id_list(self.path)


class ImageEncoder(_Files):
    """A frozen image encoder: a folder of Hugging Face's layout, with config.json and model.safetensors."""

    def files(self) -> Iterator[Path]:
        yield from encoder_files(self.path)


class Features(Config):
    """One modality of dense features, for both graphs."""

    left: FeatureFile
    right: FeatureFile
    encoder: ImageEncoder | None = None  # describes the images of the two folders; null: colours and gradients


class PairFolder(_Files):
    """A folder in the layout of DBP15K (ent_ids_1, triples_1, ...) or OpenEA (rel_triples_1, ...)."""

    names: Path | None = None  # readable names, as JSON [[id, [word, ...]], ...]
    fold: PositiveInt = 1  # of OpenEA's 721_5fold, where the folder has it

    @property
    def layout(self) -> Literal["dbp15k", "openea"]:
        """Raises StageError if the folder has neither layout."""
        for layout, marks in (("dbp15k", DBP15K_REQUIRED), ("openea", OPENEA_REQUIRED)):
            if all((self.path / mark).is_file() for mark in marks):
                return layout  # type: ignore[return-value]
        raise StageError(
            f"{self.path} is not a folder of a pair: expected {', '.join(DBP15K_REQUIRED)} (DBP15K) or "
            f"{', '.join(OPENEA_REQUIRED)} (OpenEA)"
        )

    @property
    def fold_folder(self) -> Path | None:
        """The split of OpenEA that is used, if the folder has any. Raises StageError if it has only others."""
        folds = self.path / "721_5fold"
        if not folds.is_dir():
            return None
        if not (folds / str(self.fold)).is_dir():
            known = ", ".join(sorted(path.name for path in folds.iterdir() if path.is_dir()))
            raise StageError(f"fold: {folds} has no folder {self.fold}; expected one of {known or 'none: it is empty'}")
        return folds / str(self.fold)

    def files(self) -> Iterator[Path]:
        if self.layout == "dbp15k":
            yield from (self.path / name for name in DBP15K_REQUIRED)
            optional = ["sup_ent_ids", "training_attrs_1", "training_attrs_2"]
        else:
            yield from (self.path / name for name in OPENEA_REQUIRED)
            optional = ["attr_triples_1", "attr_triples_2"]
        yield from (path for name in optional if (path := self.path / name).is_file())
        if self.layout == "openea" and (fold := self.fold_folder) is not None:
            yield from (fold / name for name in OPENEA_SPLITS)
        if self.names is not None:
            if self.layout == "openea":
                raise StageError("names: entities of OpenEA are named by their ids; names is for a folder of DBP15K")
            yield self.names


DBP15K_REQUIRED = ("ent_ids_1", "ent_ids_2", "triples_1", "triples_2", "ref_ent_ids")
OPENEA_REQUIRED = ("rel_triples_1", "rel_triples_2", "ent_links")
OPENEA_SPLITS = ("train_links", "valid_links", "test_links")


class EmojiPair(External):
    """Emoji in two languages, from the package `emoji`: names, words, parts. A third of the edges is missing."""

    kind: Literal["emoji"] = "emoji"
    languages: tuple[str, str] = ("en", "es")  # of those that the package has
    limit: PositiveInt = 5000  # emoji
    dropped: Share = 1 / 3  # of the edges and attributes of each side, at random
    seed: NonNegativeInt = 0

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        from stages.entity_alignment.emoji_files import data_files

        files = "".join(f"{path.name}\0{digest_file(path)}\n" for path in data_files(self.languages))
        return hashlib.sha256(f"{files}{self.model_dump_json()}".encode()).hexdigest()


class SimulatedPair(Config):
    """Two noisy views of the same random things, with relations, attributes and images, and known noise."""

    kind: Literal["simulated"] = "simulated"
    entities: PositiveInt = Field(default=1000, ge=20)  # on each side; every one has its counterpart
    edges: PositiveInt = 6  # that an entity begins, before some are dropped
    dropped: Share = 0.3  # of the edges and attributes of each side
    image_noise: float = Field(default=0.6, ge=0)  # standard deviation, where the signal's is 1
    corrupted_images: Share = 0.0  # entities of each side whose image is not theirs
    corruption: Literal["noise", "swapped"] = "noise"  # what they have instead: noise, or the image of another of them
    corrupted_attributes: Share = 0.0  # entities of each side whose attributes are those of nothing
    seed: NonNegativeInt = 0


Made: TypeAlias = Annotated[EmojiPair | SimulatedPair, Field(discriminator="kind")]
