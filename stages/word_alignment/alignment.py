"""The artifact of an alignment: both languages' vectors, the map between them, and how it was found.

alignment.json         the languages, the method, every restart, and whether the result can be believed
mapping.safetensors    W, W before refinement, W after each iteration, and the densities that CSLS needs
source.safetensors     normalised vectors, with their words in source.words.txt; the same for target
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stages.base import Application, ArtifactError, Config, ExampleRequest, Resources, Servable, StageError
from stages.json_files import read_json
from stages.word_alignment.settings import Method

if TYPE_CHECKING:
    from stages.word_alignment.linear import Array

Side = Literal["source", "target"]
FACTS, MAPPING = "alignment.json", "mapping.safetensors"
SIDES: tuple[Side, Side] = ("source", "target")
FACTS_LIMIT_BYTES = 16 << 20
RELIABLE_RATIO = 1.2
EXAMPLE_WORDS = 5
FACTORY = "stages.word_alignment.http:create"
TENSORS = ("mapping", "unrefined", "trajectory", "source_densities", "target_densities")


class Restart(Config):
    """One run of the method. The criterion is the mean CSLS of the source words' best targets."""

    seed: NonNegativeInt
    criterion: float
    unrefined_criterion: float
    criteria: tuple[float, ...]  # one for each W of the trajectory


class AlignmentFacts(Config):
    """How an alignment was found, and how it compares with chance."""

    languages: tuple[str, str]  # of source and target
    substituted: tuple[bool, bool] = (False, False)  # whether each is a planted language
    method: Method
    dimensions: PositiveInt
    words: tuple[PositiveInt, PositiveInt]
    restarts: tuple[Restart, ...] = Field(min_length=1)
    kept: NonNegativeInt  # index of the restart with the highest criterion
    method_iterations: NonNegativeInt  # entries of the trajectory before the refinement's
    checked_criterion: float  # the criterion under the map, on the words that reliability is judged by
    chance_criterion: float  # the highest that refinement reaches there from random rotations

    @property
    def reliable(self) -> bool:
        """Whether the map is better than what refinement makes of any two spaces, translations or not."""
        return self.checked_criterion > RELIABLE_RATIO * self.chance_criterion

    @model_validator(mode="after")
    def _kept_exists(self) -> AlignmentFacts:
        if self.kept >= len(self.restarts):
            raise ValueError(f"kept is {self.kept}, of {len(self.restarts)} restarts")
        return self


@dataclass(frozen=True)
class WordAlignment(Servable):
    """Two languages' word vectors and the map from the source's to the target's. Served, it translates words."""

    @cached_property
    def facts(self) -> AlignmentFacts:
        return read_json(self.path / FACTS, AlignmentFacts, "a description of an alignment", FACTS_LIMIT_BYTES)

    def side(self, side: Side) -> tuple[list[str], Array]:
        """The words of a language and their normalised vectors [words, dimensions]."""
        from stages.word_alignment.read_vectors import read

        count = self.facts.words[SIDES.index(side)]
        try:
            loaded = read(self.path / f"{side}.safetensors", count)
        except StageError as error:
            raise ArtifactError(str(error)) from None
        if loaded.vectors.shape != (count, self.facts.dimensions):
            raise ArtifactError(f"{self.path / side}.safetensors: expected {count} words, as {FACTS} says")
        return loaded.words, loaded.vectors

    def tensors(self) -> dict[str, Array]:
        """`mapping` and `unrefined` [d, d], `trajectory` [iterations, d, d]: row vectors of the source times W are in
        the target's space. `source_densities` and `target_densities` [words]: of CSLS, under `mapping`."""
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path, facts = self.path / MAPPING, self.facts
        try:
            found: dict[str, Array] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}") from None
        d = facts.dimensions
        shapes = [(d, d), (d, d), (len(facts.restarts[facts.kept].criteria), d, d), *((n,) for n in facts.words)]
        if {name: value.shape for name, value in found.items()} != dict(zip(TENSORS, shapes, strict=True)):
            raise ArtifactError(f"{path}: its tensors are not those that {FACTS} promises")
        if not all(np.isfinite(value).all() for value in found.values()):
            raise ArtifactError(f"{path} has a value that is not finite")
        return found

    def application(self) -> Application:
        """POST /v1/translate, from this directory."""
        vectors = sum(self.facts.words) * self.facts.dimensions * 4
        return Application(
            name="translate",
            factory=FACTORY,
            arguments={"alignment": str(self.path.absolute())},
            resources=Resources(memory_bytes=3 * vectors + (256 << 20)),
        )

    def examples(self) -> tuple[ExampleRequest, ...]:
        """The most frequent words in both directions, and a word that no vocabulary has."""
        languages = self.facts.languages
        asked = [
            ExampleRequest(
                "POST", "/v1/translate", {"words": self.side(side)[0][:EXAMPLE_WORDS], "from": language, "k": 3}
            )
            for side, language in zip(SIDES, languages, strict=True)
        ]
        unknown = ExampleRequest("POST", "/v1/translate", {"words": ["\n"], "from": languages[0]}, status=404)
        return (*asked, unknown)

    def check(self) -> None:
        self.tensors()
        for side in SIDES:
            self.side(side)

    def describe(self) -> Mapping[str, object]:
        facts = self.facts
        kept = facts.restarts[facts.kept]
        return {
            "languages": " -> ".join(facts.languages),
            "method": facts.method,
            "words": list(facts.words),
            "restarts": len(facts.restarts),
            "criterion": kept.criterion,
            "criterion by chance": facts.chance_criterion,
            "reliable": facts.reliable,
        }


def write(
    path: Path,
    facts: AlignmentFacts,
    words: tuple[Sequence[str], Sequence[str]],
    vectors: tuple[Array, Array],
    tensors: Mapping[str, Array],
) -> WordAlignment:
    """Write an alignment into the directory `path`."""
    import numpy as np
    from safetensors.numpy import save_file

    for side, names, values in zip(SIDES, words, vectors, strict=True):
        save_file({"vectors": np.ascontiguousarray(values, np.float32)}, path / f"{side}.safetensors")
        (path / f"{side}.words.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    save_file({name: np.ascontiguousarray(tensors[name], np.float32) for name in TENSORS}, path / MAPPING)
    (path / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
    return WordAlignment(path)
