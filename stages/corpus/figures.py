"""A corpus at a glance: what each source, language and licence gave, how long texts are, what was dropped."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stages.artifacts.manifest import Cut, Manifest, Tally
from stages.corpus.tree_map import tiles

SHOWN = 8  # bars of a panel; the rest is summed


def flow_figure(manifest: Manifest) -> Figure:
    """Bars, in megabytes: kept by source, language and licence, dropped by reason; and a histogram of lengths."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    panels = (
        ("kept, by source", _kept(manifest, "source"), "#2f6f4f"),
        ("kept, by language", _kept(manifest, "language"), "#4f6f8f"),
        ("kept, by licence", _kept(manifest, "license"), "#2f5f8f"),
        ("dropped, by reason", manifest.total.dropped, "#a0522d"),
    )
    *axes, lengths, nothing = figure.subplots(2, 3).flat
    for each, (title, tallies, color) in zip(axes, panels, strict=True):
        _bars(each, title, tallies, color)
    _histogram(lengths, manifest)
    nothing.set_axis_off()
    return figure


def tree_map_figure(manifest: Manifest) -> Figure:
    """What is kept, by language and in each by source, as areas."""
    width, height = 100.0, 50.0
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    for tile in tiles(manifest, width, height):
        axes.add_patch(Rectangle((tile.x, tile.y), tile.width, tile.height, facecolor=tile.color, edgecolor="white"))
        if tile.width > 8 and tile.height > 4:
            name = f"{tile.language or '(none)'} · {tile.source}".replace("$", r"\$")
            text = f"{name}\n{tile.bytes / 1e6:,.2f} MB"
            label = axes.text(tile.x + 0.6, tile.y + 0.8, text, color="white", fontsize=8, va="top", clip_on=True)
            label.set_clip_path(axes.patches[-1])
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_title("kept, by language and source")
    axes.set_axis_off()
    return figure


def _kept(manifest: Manifest, cut: Cut) -> dict[str, Tally]:
    return {name or "(none)": flow.kept for name, flow in manifest.by(cut).items()}


def _histogram(axes: Axes, manifest: Manifest) -> None:
    """Documents by the length of their text."""
    lengths = manifest.lengths
    axes.bar(range(len(lengths)), [tally.documents for tally in lengths.values()], color="#6f6f6f", width=0.9)
    names = [f"{2**bits:,}" if bits < 10 else f"{2 ** (bits - 10):,} KiB" for bits in lengths]
    axes.set_xticks(range(len(lengths)), names, fontsize=7, rotation=45, ha="right")
    axes.set_title("documents kept, by length below", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


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
