"""Tables for people: what the methods reached, and the actions that they chose."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from stages.exploration.explorations import ExplorationFacts
from stages.table_page import table_page

SHOWN = 50  # rows of each policy
Row = tuple[str, int, tuple[float, float], tuple[float, float]]  # method, seeds, worst and mean with intervals


def table(facts: ExplorationFacts, rows: Sequence[Row], at: int) -> str:
    """The methods' results after `at` trials or rounds, in Markdown."""
    better = "smaller" if facts.measure == "regret" else "larger"
    lines = [
        f"# {facts.problem} after {at} {facts.unit}",
        "",
        f"The {facts.measure}, with 95 % intervals over seeds; {better} is better.",
        "",
        f"| method | seeds | worst {facts.measure} | mean {facts.measure} |",
        "|---|---|---|---|",
    ]
    for method, seeds, worst, mean in rows:
        cells = [f"{value:.3f} ± {half:.3f}" for value, half in (worst, mean)]
        lines.append(f"| {method} | {seeds} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def policy_page(facts: ExplorationFacts) -> str:
    """For each method of the first seed: contexts or states, the chosen action, and the gap that is left there."""
    rows = []
    for one in facts.maps:
        gaps = one.gaps or (None,) * len(one.places)
        for where, action, gap in list(zip(one.places, one.actions, gaps, strict=True))[:SHOWN]:
            rows.append((escape(one.method), _numbers(where), _numbers(action), "" if gap is None else f"{gap:.3f}"))
    columns = ("method", "context" if facts.measure == "regret" else "state", "action", "gap")
    return table_page(f"Policies of the first seed, {facts.problem}", columns, rows)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
