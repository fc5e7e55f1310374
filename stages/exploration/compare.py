"""Compares explorations: means over seeds with intervals, where uncertainty is left, and the policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stages.base import VERDICT, Artifact, Context, Stage, StageError
from stages.exploration.explorations import Explorations, Policy

SUMMARY = "comparison.md"


@dataclass(frozen=True)
class ExplorationComparison(Artifact):
    """A table of what each method reached, figures, and the policies of the first seed."""


class CompareExplorations(Stage):
    """Compares the methods of explorations, with intervals over seeds."""

    headline: ClassVar[str | None] = "worst"
    spawns: ClassVar[bool] = False

    explorations: Explorations
    policy: Policy = "last"  # of environments: from the last lower bounds, or from the best of all rounds

    def run(self, ctx: Context) -> ExplorationComparison:
        from stages.exploration.figures import curves_figure, gaps_figure
        from stages.exploration.intervals import mean_interval
        from stages.exploration.pages import policy_page, table

        facts = self.explorations.facts
        chosen = [curve for curve in facts.curves if curve.policy == self.policy]
        if not chosen:
            raise StageError(f"{self.explorations.path} has no curves of the policy {self.policy}; expected `last`")
        rows = []
        for method in facts.methods():
            own = [curve for curve in chosen if curve.method == method]
            worst = mean_interval([curve.worst[-1] for curve in own])
            mean = mean_interval([curve.mean[-1] for curve in own])
            rows.append((method, len(own), worst, mean))
            ctx.metrics({f"worst_{method}": worst[0], f"mean_{method}": mean[0]})
        ctx.metrics({"worst": rows[0][2][0]})
        text = table(facts, rows, chosen[0].at[-1])
        (ctx.out / SUMMARY).write_text(text)
        ctx.page("comparison.md", text)
        ctx.page("policies.html", policy_page(facts))
        ctx.figure("curves", curves_figure(facts, chosen))
        if figure := gaps_figure(facts):
            ctx.figure("gaps", figure)
        best = (min if facts.measure == "regret" else max)(rows, key=lambda row: row[2][0])
        method, _, worst, mean = rows[0]
        ctx.highlight(
            VERDICT,
            f"{facts.problem}: {method} has a worst {facts.measure} of {worst[0]:.3f} ± {worst[1]:.3f} and a mean of "
            f"{mean[0]:.3f} ± {mean[1]:.3f}; best worst {facts.measure}: {best[0]}, {best[2][0]:.3f}.",
        )
        return ExplorationComparison(ctx.out)
