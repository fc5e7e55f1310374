"""Evaluates an alignment on the test links: ranks, weights of the modalities, robustness, mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeInt

from stages.base import VERDICT, Context, Stage, StageError, Stopped
from stages.entity_alignment.alignment import EntityAlignment
from stages.entity_alignment.alignment_report import AlignmentReport, Mistake
from stages.entity_alignment.graph_pair import GraphPair
from stages.entity_alignment.settings import Modality
from stages.table_page import scored, table_page

if TYPE_CHECKING:
    from torch import Tensor

    from stages.csls import Array, Selection
    from stages.entity_alignment.alignment_report import Accuracy, AlignmentResults
    from stages.entity_alignment.graphs import Pair
    from stages.entity_alignment.ranking import Found

ANSWERS = 3


class EvaluateEntityAlignment(Stage):
    """Ranks the right entities of the test links for the left ones under CSLS, and the other way round."""

    version: ClassVar[str] = "2"  # 2: another index of the approximate search
    headline: ClassVar[str | None] = "hits_at_1"
    spawns: ClassVar[bool] = False

    graphs: GraphPair
    alignment: EntityAlignment
    csls_neighbours: NonNegativeInt = 3  # 0: cosine
    search: Literal["exact", "approximate"] = "exact"  # approximate: with FAISS, for very many links; ranks to 101
    robustness: tuple[Modality, ...] = ()  # modalities that are made noise for 0 to 60 % of the entities
    mistakes: NonNegativeInt = 100  # to keep
    seed: NonNegativeInt = 0  # of the noise

    def run(self, ctx: Context) -> AlignmentReport:
        import torch

        from stages.csls import Selection
        from stages.entity_alignment.alignment_report import REPORT, AlignmentResults
        from stages.entity_alignment.figures import hits_figure, robustness_figure, weights_figure

        pair, facts, tensors = self.graphs.load(), self.alignment.facts, self.alignment.tensors()
        names, middle = self.alignment.names(), len(pair.entities[0])
        if (names["left"], names["right"]) != pair.entities:
            raise StageError("alignment: it is of another pair than graphs; name the step whose pair it was trained on")
        links = torch.from_numpy(pair.links_of("test"))
        if not len(links):
            raise StageError("graphs: the pair has no test links; lower train_share, or give test.path")
        left = Selection(tensors["left"].numpy(), links[:, 0].numpy())
        right = Selection(tensors["right"].numpy(), links[:, 1].numpy() - middle)
        found = self._found(ctx, left, right)
        weights = torch.cat([tensors["left_weights"], tensors["right_weights"]])
        tested = weights[links.flatten()].double()
        curves = self._curves(ctx, pair, links)
        results = AlignmentResults(
            source=self.graphs.facts.source,
            fusion=facts.model.fusion,
            neighbours=self.csls_neighbours,
            forward=_accuracy(found.ranks.forward),
            backward=_accuracy(found.ranks.backward),
            weights={
                name: (float(tested[:, m].mean()), float(tested[:, m].std(correction=0)))
                for m, name in enumerate(facts.modalities)
            },
            corrupted_weights=_of_corrupted(pair, facts.modalities, weights),
            robustness=curves,
            mistakes=self._mistakes(pair, links, left, right, found),
        )
        (ctx.out / REPORT).write_text(results.model_dump_json(indent=2) + "\n")
        self._report(ctx, results)
        ctx.figure("hits", hits_figure({"left to right": found.ranks.forward, "right to left": found.ranks.backward}))
        ctx.figure("weights", weights_figure(facts.modalities, weights.numpy(), pair.corrupted))
        if curves:
            ctx.figure("robustness", robustness_figure(curves))
        ctx.page("mistakes.html", mistakes_page(f"Mistakes, {results.source}", results.mistakes))
        return AlignmentReport(ctx.out)

    def _found(self, ctx: Context, left: Selection, right: Selection) -> Found:
        from stages.entity_alignment import approximate, ranking

        if self.search == "exact":
            return ranking.found(left, right, self.csls_neighbours)
        found = approximate.found(left, right, self.csls_neighbours)
        ctx.metrics({"search_recall_at_10": approximate.recall(left, right, self.seed)})
        return found

    def _curves(self, ctx: Context, pair: Pair, links: Tensor) -> dict[str, tuple[tuple[float, float], ...]]:
        from stages.entity_alignment.modalities import inputs_of
        from stages.entity_alignment.model import AlignmentModel
        from stages.entity_alignment.robustness import curve

        facts, parameters = self.alignment.facts, self.alignment.parameters()
        absent = [one for one in self.robustness if one == "graph" or one not in facts.modalities]
        if absent or (self.robustness and parameters is None):
            usable = [one for one in facts.modalities if one != "graph"] if parameters is not None else []
            raise StageError(
                f"robustness: {', '.join(absent or self.robustness)} can't be made noise; expected some of "
                f"{', '.join(usable) or 'none: nothing was trained'}"
            )
        if parameters is None or not self.robustness:
            return {}
        inputs = inputs_of(pair, facts.modalities)
        model = AlignmentModel(facts.model, inputs)
        model.load_state_dict(parameters)
        curves: dict[str, tuple[tuple[float, float], ...]] = {}
        for done, modality in enumerate(self.robustness):
            if ctx.stopping():
                raise Stopped
            ctx.progress(done, len(self.robustness), "modalities")
            curves[modality] = curve(model, inputs, modality, links, self.csls_neighbours, self.seed)
        return curves

    def _mistakes(
        self, pair: Pair, links: Tensor, left: Selection, right: Selection, found: Found
    ) -> tuple[Mistake, ...]:
        import numpy as np

        from stages.csls import nearest

        wrong = np.flatnonzero(found.ranks.forward > 1)[: self.mistakes]
        of_left, of_right = found.densities
        places, scores = nearest(left[wrong], right, of_left[wrong], of_right, ANSWERS)
        middle = len(pair.entities[0])
        candidates = [_called(pair, 1, int(one) - middle) for one in links[:, 1]]
        return tuple(
            Mistake(
                entity=_called(pair, 0, int(links[row, 0])),
                answers=tuple((candidates[p], s) for p, s in zip(places[n].tolist(), scores[n].tolist(), strict=True)),
                expected=candidates[row],
                rank=float(found.ranks.forward[row]),
            )
            for n, row in enumerate(wrong.tolist())
        )

    def _report(self, ctx: Context, results: AlignmentResults) -> None:
        forward, backward = results.forward, results.backward
        ctx.metrics({
            "hits_at_1": forward.hits_at_1, "hits_at_10": forward.hits_at_10, "hits_at_50": forward.hits_at_50,
            "mean_rank": forward.mean_rank, "mrr": forward.mrr, "queries": forward.queries,
            "hits_at_1_backward": backward.hits_at_1, "hits_at_10_backward": backward.hits_at_10,
            "mrr_backward": backward.mrr,
        })  # fmt: skip
        low, high = forward.interval
        ctx.highlight(
            VERDICT,
            f"{results.source}, {results.fusion}: Hits@1 {forward.hits_at_1:.1%} (95 % interval {low:.1%} to "
            f"{high:.1%}), Hits@10 {forward.hits_at_10:.1%}, MRR {forward.mrr:.3f} of {forward.queries} entities; "
            f"from right to left Hits@1 {backward.hits_at_1:.1%}.",
        )


def _accuracy(ranks: Array) -> Accuracy:
    from stages.entity_alignment.alignment_report import Accuracy

    def hits(k: int) -> float:
        return float((ranks <= k).mean())

    return Accuracy(
        queries=len(ranks),
        hits_at_1=hits(1),
        hits_at_10=hits(10),
        hits_at_50=hits(50),
        mean_rank=float(ranks.mean()),
        mrr=min(1.0, float((1 / ranks).mean())),
    )


def _of_corrupted(pair: Pair, modalities: tuple[Modality, ...], weights: Tensor) -> dict[str, tuple[float, float]]:
    """For each modality with known noise: the mean weight of the corrupted entities, and of the others."""
    import torch

    found: dict[str, tuple[float, float]] = {}
    for m, name in enumerate(modalities):
        if name in pair.corrupted:
            bad = torch.zeros(len(weights), dtype=torch.bool)
            bad[torch.from_numpy(pair.corrupted[name])] = True
            found[name] = float(weights[bad, m].mean()), float(weights[~bad, m].mean())
    return found


def _called(pair: Pair, side: int, entity: int) -> str:
    """The id of an entity with its label, if that says more."""
    name, label = pair.entities[side][entity], pair.labels[side][entity]
    return f"{name} ({label})" if label and label != name else name


def mistakes_page(title: str, mistakes: Sequence[Mistake]) -> str:
    """A table of mistakes with what was expected."""
    rows = ((escape(one.entity), scored(one.answers), escape(one.expected), f"{one.rank:g}") for one in mistakes)
    columns = ("entity", "best candidates (CSLS)", "expected", "its rank")
    return table_page(title, columns, rows)
