"""A corpus at a glance: what each source and licence gave, and what was dropped for which reason."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.artifacts.corpus import Manifest, Tally

SHOWN = 8  # bars of a panel; the rest is summed


def flow_figure(manifest: Manifest) -> Figure:
    """Three panels of bars, in megabytes: kept by source, kept by licence, dropped by reason."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    kept = {source: flow.kept for source, flow in manifest.sources.items()}
    panels = (
        ("kept, by source", kept, "#2f6f4f"),
        ("kept, by licence", manifest.licenses, "#2f5f8f"),
        ("dropped, by reason", manifest.total.dropped, "#a0522d"),
    )
    for axes, (title, tallies, color) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _bars(axes, title, tallies, color)
    return figure


def _bars(axes: Axes, title: str, tallies: Mapping[str, Tally], color: str) -> None:
    ordered = sorted(tallies.items(), key=lambda item: (-item[1].bytes, item[0]))
    shown = [(name.replace("_", " ").replace("$", r"\$"), tally.bytes / 1e6) for name, tally in ordered[:SHOWN]]
    if ordered[SHOWN:]:
        rest = ordered[SHOWN:]
        shown.append((f"{len(rest)} others", sum(tally.bytes for _, tally in rest) / 1e6))
    names = [name if len(name) <= 32 else name[:31] + "…" for name, _ in shown]
    bars = axes.barh(range(len(shown)), [size for _, size in shown], color=color)
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.set_yticks(range(len(shown)), names, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("MB of text", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
