"""Reads or makes a pair of knowledge graphs and splits its links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import Field, NonNegativeInt, model_validator

from stages.base import Context, Stage
from stages.entity_alignment.graph_pair import GraphPair
from stages.entity_alignment.problems import OnProblem
from stages.entity_alignment.settings import Dense
from stages.entity_alignment.sources import EmojiPair, Features, GraphFile, LinkFile, Made, PairFolder


class MakeGraphPair(Stage):
    """Reads a pair of graphs from `left`, `right` and `seeds`, or from a `folder`, or makes one (`made`)."""

    headline: ClassVar[str | None] = "entities"
    spawns: ClassVar[bool] = False

    left: GraphFile | None = None
    right: GraphFile | None = None
    seeds: LinkFile | None = None  # known links between the two graphs
    test: LinkFile | None = None  # links for the test; null: the seeds that are not trained on
    folder: PairFolder | None = None  # DBP15K's or OpenEA's layout; with features, ids are those of the files
    features: Mapping[Dense, Features] = {}  # dense features, by modality
    made: Made | None = None  # a pair that needs no files; files or a folder replace it
    problems: OnProblem = "refuse"  # what is wrong in a file: refuse the files, or skip the line and count it
    train_share: float = Field(default=0.3, gt=0, le=1)  # of the links, where the files don't give the split
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the training links; selects the best epoch
    seed: NonNegativeInt = 0  # of the split

    @model_validator(mode="before")
    @classmethod
    def _files_replace_what_is_made(cls, values: Any) -> Any:
        if not isinstance(values, dict) or all(values.get(name) is None for name in ("left", "right", "folder")):
            return values
        return {name: value for name, value in values.items() if name != "made"}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        files = {name: getattr(self, name) for name in ("left", "right", "seeds")}
        missing = [name for name, value in files.items() if value is None]
        if len(missing) == 3 and self.folder is None and self.made is None:
            raise ValueError(
                "there is no pair: give left.path, right.path and seeds.path, or folder.path, or made.kind"
            )
        if missing and len(missing) < 3:
            raise ValueError(f"{missing[0]}: missing; two graphs need left.path, right.path and seeds.path")
        if not missing and self.folder is not None:
            raise ValueError("folder: left, right and seeds are given too; choose one of the two")
        if self.test is not None and missing:
            raise ValueError("test: only left, right and seeds use it; a folder has its own split")
        if self.features and missing and self.folder is None:
            raise ValueError("features: a pair that is made has its own; give left, right and seeds, or a folder")
        return self

    def run(self, ctx: Context) -> GraphPair:
        from stages.entity_alignment import emoji_pair, simulated_pair
        from stages.entity_alignment.graph_pair import facts_of, write
        from stages.entity_alignment.problems import Problems
        from stages.entity_alignment.read_pair import read_files, read_folder
        from stages.entity_alignment.splits import fixed_split, random_split

        problems, splits = Problems(self.problems), None
        if self.folder is not None:
            source = self.folder.path.name
            pair, splits = read_folder(self.folder, self.features, problems)
        elif self.left is not None and self.right is not None and self.seeds is not None:
            source = f"{self.left.path.name} and {self.right.path.name}"
            pair, splits = read_files((self.left, self.right), self.seeds, self.test, self.features, problems)
        else:
            made = cast("Made", self.made)  # as one of the three is given
            source = f"emoji {'-'.join(made.languages)}" if isinstance(made, EmojiPair) else "simulated"
            pair = emoji_pair.make(made) if isinstance(made, EmojiPair) else simulated_pair.make(made)
        problems.settle()
        if splits is None:
            pair = random_split(pair, self.train_share, self.validation_share, self.seed)
        else:
            pair = fixed_split(pair, splits, self.validation_share, self.seed)
        facts = facts_of(pair, source, problems.lines())
        for line in facts.problems:
            ctx.note(f"skipped: {line}")
        for modality, reason in facts.absent.items():
            ctx.note(f"the modality {modality} is absent: {reason}")
        ctx.metrics({
            "entities": sum(facts.entities),
            "triples": sum(facts.triples),
            "skipped": problems.counts.total(),
            **{f"{split}_links": count for split, count in facts.links.items()},
        })  # fmt: skip
        return write(ctx.out, pair, facts)
