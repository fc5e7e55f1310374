"""Measures an alignment against a dictionary: bilingual lexicon induction with CSLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeInt

from stages.base import VERDICT, Context, Stage, StageError, Stopped
from stages.word_alignment.alignment import WordAlignment
from stages.word_alignment.dictionaries import Dictionary, known_pairs, planted_pairs
from stages.word_alignment.lexicon_report import REPORT, LexiconReport, LexiconResults, Mistake

if TYPE_CHECKING:
    from stages.word_alignment.linear import Array

ANSWERS = 5  # of each query that the pages show
SHOWN_WORDS = 100  # the most frequent words of the page of nearest words
CURVE_WORDS = 5000  # the most frequent words, which P@1 by iteration is of


class EvaluateLexicon(Stage):
    """Measures the share of a dictionary's translations that an alignment finds."""

    headline: ClassVar[str | None] = "p_at_1"
    spawns: ClassVar[bool] = False

    alignment: WordAlignment
    dictionary: Dictionary | None = None  # null: the known substitution, where one language is planted
    mistakes: NonNegativeInt = 100  # to keep, those of the most frequent words

    def run(self, ctx: Context) -> LexiconReport:
        import numpy as np

        from stages.csls import nearest
        from stages.word_alignment.accuracy import accuracy
        from stages.word_alignment.figures import accuracy_figure
        from stages.word_alignment.linear import mapped
        from stages.word_alignment.pages import mistakes_page, neighbours_page

        facts, tensors = self.alignment.facts, self.alignment.tensors()
        (source_words, source), (target_words, target) = self.alignment.side("source"), self.alignment.side("target")
        pairs = self._pairs(source_words)
        known = known_pairs(pairs, source_words, target_words)
        if not known:
            raise StageError("the vocabularies hold no pair of the dictionary: check its languages and their order")
        queries, correct = np.array(list(known)), list(known.values())

        projected = mapped(source, tensors["mapping"])
        unrefined = mapped(source, tensors["unrefined"])
        if ctx.stopping():
            raise Stopped
        before = accuracy(unrefined, target, known)
        densities = tensors["source_densities"], tensors["target_densities"]
        after = accuracy(projected, target, known, densities)
        backward = accuracy(target, projected, _reversed(known), densities[::-1])
        by_iteration = self._by_iteration(ctx, source, target, tensors["trajectory"], known)

        def answers(places: Array) -> list[tuple[tuple[str, float], ...]]:
            found = nearest(projected[places], target, densities[0][places], densities[1], ANSWERS)
            return [
                tuple((target_words[index], round(float(score), 4)) for index, score in zip(*row, strict=True))
                for row in zip(*found, strict=True)
            ]

        mistakes = [
            Mistake(word=source_words[place], answers=best, expected=tuple(target_words[one] for one in sorted(right)))
            for place, best, right in zip(queries, answers(queries), correct, strict=True)
            if best[0][0] not in {target_words[one] for one in right}
        ][: self.mistakes]
        results = LexiconResults(
            languages=facts.languages,
            method=facts.method,
            reliable=facts.reliable,
            dictionary_words=len({word for word, _ in pairs}),
            before=before,
            after=after,
            backward=backward,
            by_iteration=by_iteration,
            mistakes=tuple(mistakes),
        )
        (ctx.out / REPORT).write_text(results.model_dump_json(indent=2) + "\n")
        self._report(ctx, results)
        ctx.figure("accuracy", accuracy_figure(facts, by_iteration))
        shown = np.arange(min(SHOWN_WORDS, len(source_words)))
        title = f"{facts.languages[0]} to {facts.languages[1]}"
        rows = zip(source_words, answers(shown), strict=False)
        ctx.page("nearest_words.html", neighbours_page(f"Nearest words, {title}", rows))
        ctx.page("mistakes.html", mistakes_page(f"Mistakes, {title}", mistakes))
        return LexiconReport(ctx.out)

    def _pairs(self, source_words: list[str]) -> list[tuple[str, str]]:
        facts = self.alignment.facts
        if self.dictionary is not None:
            return self.dictionary.pairs()
        if facts.substituted[0] != facts.substituted[1]:
            return planted_pairs(source_words, facts.substituted[0], "test")
        raise StageError(
            "no dictionary to evaluate with: set `dictionary.path` to a file with a source and a target word a line, "
            "or leave this step out"
        )

    def _by_iteration(
        self, ctx: Context, source: Array, target: Array, trajectory: Array, known: dict[int, frozenset[int]]
    ) -> tuple[float, ...]:
        """P@1 under each W of the trajectory, among the most frequent words of both languages."""
        from stages.word_alignment.accuracy import accuracy
        from stages.word_alignment.linear import mapped

        source, target = source[:CURVE_WORDS], target[:CURVE_WORDS]
        near = {
            place: kept
            for place, right in known.items()
            if place < CURVE_WORDS and (kept := frozenset(one for one in right if one < CURVE_WORDS))
        }
        found = []
        for done, mapping in enumerate(trajectory):
            if ctx.stopping():
                raise Stopped
            ctx.progress(done, len(trajectory), "iterations")
            projected = mapped(source, mapping)
            found.append(accuracy(projected, target, near).p_at_1 if near else 0.0)
        return tuple(found)

    def _report(self, ctx: Context, results: LexiconResults) -> None:
        before, after = results.before, results.after
        ctx.metrics({
            "p_at_1": after.p_at_1, "p_at_5": after.p_at_5, "mrr": after.mrr,
            "p_at_1_backward": results.backward.p_at_1,
            "p_at_1_before": before.p_at_1, "p_at_5_before": before.p_at_5, "mrr_before": before.mrr,
            "queries": after.queries, "coverage": after.queries / results.dictionary_words,
        })  # fmt: skip
        for step, value in enumerate(results.by_iteration):
            ctx.metrics({"p_at_1_by_iteration": value}, step)
        low, high = after.interval
        text = (
            f"P@1 {after.p_at_1:.1%} (95 % interval {low:.1%} to {high:.1%}), P@5 {after.p_at_5:.1%}, "
            f"MRR {after.mrr:.3f} of {after.queries} words; P@1 before refinement {before.p_at_1:.1%}."
        )
        if not results.reliable:
            text += "\nThe alignment reported itself as no better than chance."
        ctx.highlight(VERDICT, text)


def _reversed(known: dict[int, frozenset[int]]) -> dict[int, frozenset[int]]:
    """The source words of each target word."""
    found: dict[int, set[int]] = {}
    for source, targets in known.items():
        for target in targets:
            found.setdefault(target, set()).add(source)
    return {target: frozenset(found[target]) for target in sorted(found)}
