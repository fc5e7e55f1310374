"""Whether a tokenizer of many languages is fair to each: tokens per word beside a tokenizer of that language alone.

BLOOM's designers let no language fall more than ten points behind a monolingual tokenizer (arXiv 2211.05100, section
3.2). Both have the same size and are trained on the same corpus; both are measured on held-out texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from stages.artifacts.corpus import Corpus
from stages.base import Config
from stages.corpus.languages import quality_code

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer as LoadedTokenizer

Train = Callable[[Iterable[list[str]]], "LoadedTokenizer"]


class FertilityGate(Config):
    """Which languages are measured, how far they may fall behind, and what happens if one falls further."""

    max_excess: float = Field(default=0.10, gt=0)  # of tokens per word, over those of the monolingual tokenizer
    otherwise: Literal["fail", "warn"] = "fail"
    languages: tuple[str, ...] = ()  # none: all that have enough text
    min_bytes: PositiveInt = 100_000  # of training text, to tell anything of a language
    max_bytes: PositiveInt = 100_000_000  # of training text for each monolingual tokenizer
    held_out_bytes: PositiveInt = 1_000_000  # that tokens are counted on, of each language


@dataclass(frozen=True)
class Fertility:
    """Tokens per word of a language's held-out texts."""

    shared: float  # of the tokenizer of all languages
    alone: float  # of that of this language

    @property
    def excess(self) -> float:
        return self.shared / self.alone - 1


def fertilities(corpus: Corpus, tokenizer: LoadedTokenizer, gate: FertilityGate, train: Train) -> dict[str, Fertility]:
    """By language, in the order of their names: those with enough training text, and a held-out word."""
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
    """What to say of each language that has fallen too far behind."""
    return [
        f"{language}: {value.shared:.3f} tokens per word, {value.excess:.1%} more than the {value.alone:.3f} of a "
        "tokenizer of its own"
        for language, value in found.items()
        if value.excess > gate.max_excess
    ]


def fertility_figure(found: Mapping[str, Fertility], gate: FertilityGate) -> Figure:
    """Bars, a pair for each language."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.4 * len(found)), layout="constrained")
    axes = figure.subplots()
    places = range(len(found))
    colors = ["#a0522d" if value.excess > gate.max_excess else "#2f6f4f" for value in found.values()]
    shared = [value.shared for value in found.values()]
    bars = axes.barh([place - 0.2 for place in places], shared, 0.4, color=colors, label="this tokenizer")
    axes.bar_label(bars, [f"{value.excess:+.1%}" for value in found.values()], padding=3, fontsize=8)
    alone = [value.alone for value in found.values()]
    axes.barh([place + 0.2 for place in places], alone, 0.4, color="#9f9f9f", label="one of the language alone")
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
    """About `limit` bytes of texts of each language: the first that the corpus holds."""
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
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))
