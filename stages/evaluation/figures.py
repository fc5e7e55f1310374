"""Charts of bits per byte by source and by language, for the model and the baselines."""

from __future__ import annotations

from matplotlib.figure import Figure

from stages.artifacts.evaluation_report import EvalResults

CODERS = {
    "model": ("model", "#2f5f8f"),
    "xz": ("xz -9, one file", "#a0522d"),
    "xz_per_document": ("xz -9, file per document", "#d2a07d"),
    "ngram": ("n-gram", "#2f6f4f"),
}


def bits_figure(results: EvalResults) -> Figure:
    """A group of bars for each source and one for the total. Lower is better."""
    groups = {**results.sources, "all": results.total} if len(results.sources) > 1 else dict(results.sources)
    figure = Figure(figsize=(max(6.0, 2.2 * len(groups)), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(CODERS)
    for place, (coder, (label, color)) in enumerate(CODERS.items()):
        positions = [group + (place - (len(CODERS) - 1) / 2) * width for group in range(len(groups))]
        bars = axes.bar(positions, [bits.per_byte(coder) for bits in groups.values()], width, label=label, color=color)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    names = [f"{source}\n{bits.bytes / 1e3:,.0f} kB" for source, bits in groups.items()]
    axes.set_xticks(range(len(groups)), [name.replace("$", r"\$") for name in names])
    axes.set_ylabel("bits per byte (lower is better)")
    axes.set_title("Held-out text: the model and the baselines")
    figure.legend(loc="outside lower center", ncols=len(CODERS), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def languages_figure(results: EvalResults) -> Figure:
    """A bar for each language, with marks for the n-gram model and xz, ordered by the model's bits per byte."""
    ordered = sorted(results.languages.items(), key=lambda item: (item[1].per_byte("model"), item[0]))
    places = range(len(ordered))
    figure = Figure(figsize=(8, 1.4 + 0.28 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    label, color = CODERS["model"]
    axes.barh(places, [bits.per_byte("model") for _, bits in ordered], 0.7, label=label, color=color)
    for coder, mark in (("ngram", "o"), ("xz", "|")):
        label, color = CODERS[coder]
        axes.plot([bits.per_byte(coder) for _, bits in ordered], places, mark, color=color, label=label, clip_on=False)
    names = [f"{language or '(none)'}, {bits.bytes / 1e3:,.0f} kB" for language, bits in ordered]
    axes.set_yticks(places, [name.replace("$", r"\$") for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("bits per byte (lower is better)")
    axes.set_title("Held-out text by language")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
