"""Tables for people: what the methods reached, and the actions that they chose."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from stages.base import PAGE_POLICY
from stages.exploration.explorations import ExplorationFacts

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
    place = "context" if facts.measure == "regret" else "state"
    parts = []
    for one in facts.maps:
        gaps = one.gaps or (None,) * len(one.places)
        rows = [
            f"<tr><td>{_numbers(where)}</td><td>{_numbers(action)}</td>"
            f"<td>{'' if gap is None else f'{gap:.3f}'}</td></tr>"
            for where, action, gap in list(zip(one.places, one.actions, gaps, strict=True))[:SHOWN]
        ]
        parts.append(
            f"<h2>{escape(one.method)}</h2><table><tr><th>{place}</th><th>action</th><th>gap</th></tr>"
            f"{''.join(rows)}</table>"
        )
    style = "body{font-family:sans-serif;margin:2rem}td,th{padding:.2rem .8rem;text-align:left}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{PAGE_POLICY}"><title>Policies, {escape(facts.problem)}</title><style>{style}</style></head><body>'
        f"<h1>Policies of the first seed, {escape(facts.problem)}</h1>{''.join(parts)}</body></html>"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
