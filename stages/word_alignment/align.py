"""Aligns the word vectors of two languages, without a dictionary unless the method is supervised."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Self

from pydantic import Field, NonNegativeInt, model_validator

from stages.base import Context, Runtime, Stage, StageError, Stopped
from stages.word_alignment.alignment import AlignmentFacts, WordAlignment, write
from stages.word_alignment.dictionaries import Dictionary
from stages.word_alignment.settings import RANDOM, SUPERVISED, Settings
from stages.word_alignment.vectors import WordVectors


class AlignWords(Settings, Stage):
    """Maps the word vectors of `source` into the space of `target`. Restarts run in parallel."""

    version: ClassVar[str] = "3"  # 3: other draws for the same seed
    headline: ClassVar[str | None] = "criterion"

    source: WordVectors
    target: WordVectors
    dictionary: Dictionary | None = None  # the training pairs of a supervised method
    workers: Runtime[NonNegativeInt] = Field(default=0)  # restarts at once; 0: as many as the cluster has room for

    @model_validator(mode="after")
    def _dictionary_fits(self) -> Self:
        if self.dictionary is not None and self.method not in SUPERVISED:
            raise ValueError(f"dictionary: the method {self.method} uses none; choose procrustes or rcsls, or leave it")
        return self

    def run(self, ctx: Context) -> WordAlignment:
        import numpy as np

        from stages.csls import densities
        from stages.word_alignment import restarts
        from stages.word_alignment.figures import criterion_figure, spaces_figure
        from stages.word_alignment.linear import mapped, normalised
        from stages.word_alignment.settings import NEIGHBOURS

        facts = self.source.facts, self.target.facts
        if facts[0].dimensions != facts[1].dimensions:
            raise StageError(
                f"the source's vectors have {facts[0].dimensions} dimensions, the target's {facts[1].dimensions}: "
                "both must have the same"
            )
        found = self._restarts(ctx)
        best = max(range(len(found)), key=lambda index: found[index].restart.criterion)
        kept = found[best]
        mapping = kept.trajectory[-1]

        (source_words, source), (target_words, target) = self.source.load(), self.target.load()
        source, target = normalised(source), normalised(target)
        projected = mapped(source, mapping)
        if ctx.stopping():
            raise Stopped
        of_source, of_target = densities(projected, target, NEIGHBOURS)
        tensors = {
            "mapping": mapping,
            "unrefined": kept.unrefined,
            "trajectory": kept.trajectory,
            "source_densities": of_source,
            "target_densities": of_target,
        }
        result = AlignmentFacts(
            languages=(facts[0].language, facts[1].language),
            substituted=(facts[0].substituted, facts[1].substituted),
            method=self.method,
            dimensions=facts[0].dimensions,
            words=(len(source), len(target)),
            restarts=tuple(one.restart for one in found),
            kept=best,
            method_iterations=kept.method_iterations,
            checked_criterion=restarts.criterion(source, target, mapping),
            chance_criterion=restarts.chance_criterion(source, target, self.refinement_rounds, self.seed),
        )
        criteria = np.array([one.criterion for one in result.restarts])
        ctx.metrics({
            "criterion": criteria.max(),
            "criterion_spread": criteria.std(),
            "chance_criterion": result.chance_criterion,
            "reliable": float(result.reliable),
            "method_seconds": kept.seconds,
        })  # fmt: skip
        for step, value in enumerate(kept.restart.criteria):
            ctx.metrics({"criterion_by_iteration": value}, step)
        ctx.figure("criterion", criterion_figure(result))
        ctx.figure("spaces", spaces_figure(result, source, target, mapping))
        self._report(ctx, result)
        return write(ctx.out, result, (source_words, target_words), (source, target), tensors)

    def _report(self, ctx: Context, facts: AlignmentFacts) -> None:
        criterion, chance = facts.checked_criterion, facts.chance_criterion
        compared = f"criterion {criterion:.3f}; refinement of random rotations reaches {chance:.3f}"
        if facts.reliable:
            ctx.highlight("alignment", f"{' -> '.join(facts.languages)} is aligned: {compared}.")
        else:
            ctx.highlight(
                "alignment",
                f"{' -> '.join(facts.languages)} is NOT aligned: {compared}, so the map is no better than chance. The "
                "spaces may differ too much in shape; try more restarts, more text, or another method.",
            )

    def _restarts(self, ctx: Context) -> list:  # type: ignore[type-arg]  # of Result, which needs numpy
        from stages.word_alignment import restarts

        settings = Settings(**{name: getattr(self, name) for name in Settings.model_fields})
        start = ctx.scratch / "start.safetensors"
        if self.method in ("quantized_wasserstein", "stochastic_wasserstein"):
            begin = partial(restarts.write_start, source=self.source.path, target=self.target.path, settings=settings)
            list(ctx.map(begin, [start], workers=1))
        pairs = self._pairs()
        tasks = [
            restarts.Task(
                seed=self.seed + number,
                settings=settings,
                source=self.source.path,
                target=self.target.path,
                start=start,
                result=ctx.scratch / f"restart-{number}.safetensors",
                pairs=pairs,
            )
            for number in range(self.restarts if self.method in RANDOM else 1)
        ]
        for done, _ in enumerate(ctx.map(restarts.run, tasks, workers=self.workers), 1):
            ctx.progress(done, len(tasks), "restarts")
        return [restarts.read(task.result) for task in tasks]

    def _pairs(self) -> dict[int, frozenset[int]]:
        """The pairs that the method starts from, by indices: of identical strings, or of a dictionary."""
        from stages.word_alignment.dictionaries import known_pairs, planted_pairs

        if self.method not in SUPERVISED | {"identical_strings"}:
            return {}
        source, target = self.source.load()[0], self.target.load()[0]
        if self.method == "identical_strings":
            pairs, origin = [(word, word) for word in source], "the vocabularies have no two strings in common"
        elif self.dictionary is not None:
            pairs, origin = self.dictionary.pairs(), f"{self.dictionary.path} has no two pairs in both vocabularies"
        elif self.source.facts.substituted != self.target.facts.substituted:
            pairs, origin = planted_pairs(source, self.source.facts.substituted, "train"), "the texts share no words"
        else:
            raise StageError(f"the method {self.method} needs a training dictionary: set `dictionary`")
        anchored = known_pairs(pairs, source[: self.anchor_words], target[: self.anchor_words])
        if len(anchored) < 2:
            raise StageError(f"{origin}: the method {self.method} has nothing to start from")
        return dict(anchored)
