"""Measures whether a multilingual tokenizer is fair to each language: tokens per word, against monolingual tokenizers.

BLOOM's designers allowed at most ten points more than a monolingual tokenizer (arXiv 2211.05100, section 3.2). Both
tokenizers have the same size, are trained on the same corpus, and are measured on held-out texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from stages.artifacts.corpus import Corpus
from stages.artifacts.encoding import encode_batch
from stages.base import Config
from stages.corpus.languages import quality_code

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer as LoadedTokenizer

Train = Callable[[Iterable[list[str]]], "LoadedTokenizer"]


class FertilityGate(Config):
    """The languages to measure, the largest allowed excess of tokens, and what to do beyond it."""

    max_excess: float = Field(default=0.10, gt=0)  # of tokens per word, relative to the monolingual tokenizer
    otherwise: Literal["fail", "warn"] = "fail"
    languages: tuple[str, ...] = ()  # empty: all with enough text
    min_bytes: PositiveInt = 100_000  # of training text that a language needs to be measured
    max_bytes: PositiveInt = 100_000_000  # of training text for each monolingual tokenizer
    held_out_bytes: PositiveInt = 1_000_000  # of each language, to count tokens on


@dataclass(frozen=True)
class Fertility:
    """Tokens per word of a language's held-out texts."""

    shared: float  # of the multilingual tokenizer
    alone: float  # of the monolingual tokenizer

    @property
    def excess(self) -> float:
        return self.shared / self.alone - 1


def fertilities(corpus: Corpus, tokenizer: LoadedTokenizer, gate: FertilityGate, train: Train) -> dict[str, Fertility]:
    """The fertility of each language with enough training text and a held-out word, sorted by language."""
    wanted = set(gate.languages)
    sizes: dict[str, int] = defaultdict(int)
    for cell in corpus.manifest.cells:
        sizes[cell.language] += cell.flow.kept.bytes
    chosen = [name for name in sorted(sizes) if name and sizes[name] >= gate.min_bytes and name in (wanted or sizes)]
    held_out = _texts(corpus, "validation", chosen, gate.held_out_bytes)
    found = {}
    for language in chosen:
        words = _words(held_out[language], language)
        if words:
            alone = train([_texts(corpus, "train", [language], gate.max_bytes)[language]])
            found[language] = Fertility(*(_tokens(each, held_out[language]) / words for each in (tokenizer, alone)))
    return found


def behind(found: Mapping[str, Fertility], gate: FertilityGate) -> list[str]:
    """A message for each language whose excess is too large."""
    return [
        f"{language}: {value.shared:.3f} tokens per word, {value.excess:.1%} more than the {value.alone:.3f} of a "
        "monolingual tokenizer"
        for language, value in found.items()
        if value.excess > gate.max_excess
    ]


def fertility_figure(found: Mapping[str, Fertility], gate: FertilityGate) -> Figure:
    """A chart with a pair of bars for each language."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.4 * len(found)), layout="constrained")
    axes = figure.subplots()
    places = range(len(found))
    colors = ["#a0522d" if value.excess > gate.max_excess else "#2f6f4f" for value in found.values()]
    shared = [value.shared for value in found.values()]
    bars = axes.barh([place - 0.2 for place in places], shared, 0.4, color=colors, label="this tokenizer")
    axes.bar_label(bars, [f"{value.excess:+.1%}" for value in found.values()], padding=3, fontsize=8)
    alone = [value.alone for value in found.values()]
    axes.barh([place + 0.2 for place in places], alone, 0.4, color="#9f9f9f", label="monolingual tokenizer")
    axes.set_yticks(places, list(found))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"tokens per word of held-out text (at most {gate.max_excess:+.0%})")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _texts(
    corpus: Corpus, split: Literal["train", "validation"], languages: Sequence[str], limit: int
) -> dict[str, list[str]]:
    """About `limit` bytes of texts of each language: the first ones of the corpus."""
    found: dict[str, list[str]] = {language: [] for language in languages}
    sizes = dict.fromkeys(languages, 0)
    for document in corpus.documents(split):
        if document.language in found and sizes[document.language] < limit:
            found[document.language].append(document.text)
            sizes[document.language] += len(document.text.encode())
    return found


def _words(texts: Sequence[str], language: str) -> int:
    from stages.corpus.statistics.segmentation import UNSPACED, count_words
    from stages.corpus.statistics.shingles import shingles

    if (code := quality_code(language)) in UNSPACED:
        return sum(count_words(text, code) for text in texts)
    return sum(len(shingles([text], 1).hashes) for text in texts)


def _tokens(tokenizer: LoadedTokenizer, texts: Sequence[str]) -> int:
    return sum(map(len, encode_batch(tokenizer, texts)))
