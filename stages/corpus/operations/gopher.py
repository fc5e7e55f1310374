"""Gopher's rules for the quality and repetition of web text (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from stages.corpus.operations.operation import Apply, Check, Drop, Operation, at_least, at_most, checked

Ratio = Annotated[float, Field(ge=0, le=1)]
GRAM = Annotated[int, Field(ge=1, le=64)]


class GopherQuality(Operation):
    """Drops texts that are not prose: too short or long, unusual words, many symbols, lists, cut lines, no stop words.

    Gopher's quality rules (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1), as implemented in datatrove.
    """

    operation: Literal["gopher_quality"] = "gopher_quality"
    min_words: NonNegativeInt = 50
    max_words: PositiveInt = 100_000
    min_mean_word_length: NonNegativeFloat = 3
    max_mean_word_length: PositiveFloat = 10
    max_symbols_per_word: NonNegativeFloat = 0.1  # of "#", and of ellipses
    max_bullet_lines: Ratio = 0.9  # share of lines that begin with a bullet
    max_ellipsis_lines: Ratio = 0.3  # share of lines that end with an ellipsis
    min_alphabetic_words: Ratio = 0.8  # share of words with a letter
    min_stop_words: NonNegativeInt = 2  # distinct ones
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")

    def function(self) -> Apply:
        from stages.corpus.statistics.words import is_mark, tokens

        listed = frozenset(self.stop_words)

        def checks(text: str) -> Iterator[Check | Drop]:
            words = tokens(text)
            lengths = [len(word) for word in words if word.isalnum() or not is_mark(word)]
            yield at_least("too_few_words", len(lengths), self.min_words)
            yield at_most("too_many_words", len(lengths), self.max_words)
            if not lengths:
                return
            mean = sum(lengths) / len(lengths)
            yield at_least("short_words", mean, self.min_mean_word_length)
            yield at_most("long_words", mean, self.max_mean_word_length)
            for symbol, number in (("hashes", text.count("#")), ("ellipses", text.count("...") + text.count("…"))):
                yield at_most(f"many_{symbol}", number / len(words), self.max_symbols_per_word)
            lines = text.splitlines()
            bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines)
            yield at_most("bullet_lines", bullets, self.max_bullet_lines)
            cut = sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines)
            yield at_most("ellipsis_lines", cut, self.max_ellipsis_lines)
            alphabetic = sum(map(bool, map(_LETTER.search, words))) / len(words)
            yield at_least("alphabetic_words", alphabetic, self.min_alphabetic_words)
            found = len(listed.intersection(words))
            yield at_least("stop_words", found, self.min_stop_words)

        return lambda draft: checked(draft, checks(draft.text))


_LETTER = re.compile(r"[^\W\d_]")


class GopherRepetition(Operation):
    """Drops repetitive texts: duplicate lines and paragraphs, frequent short word n-grams, repeated long ones.

    Gopher's repetition rules (Rae et al. 2021, arXiv 2112.11446, table A1). Limits are shares of all lines or
    paragraphs, or of the characters of the text. Limits of n-grams are pairs of a length and a share.
    """

    operation: Literal["gopher_repetition"] = "gopher_repetition"
    max_duplicate_lines: Ratio = 0.3
    max_duplicate_paragraphs: Ratio = 0.3
    max_duplicate_line_characters: Ratio = 0.2
    max_duplicate_paragraph_characters: Ratio = 0.2
    max_top_grams: tuple[tuple[GRAM, Ratio], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    max_repeated_grams: tuple[tuple[GRAM, Ratio], ...] = (
        (5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10),
    )  # fmt: skip

    def function(self) -> Apply:
        from stages.corpus.statistics import repetition
        from stages.corpus.statistics.words import tokens

        def checks(text: str) -> Iterator[Check | Drop]:
            if not text:
                yield Drop("empty", 0, 1)
            for name, parts, most, most_characters in (
                (
                    "paragraph",
                    repetition.paragraphs(text),
                    self.max_duplicate_paragraphs,
                    self.max_duplicate_paragraph_characters,
                ),
                ("line", repetition.lines(text), self.max_duplicate_lines, self.max_duplicate_line_characters),
            ):
                number, characters = repetition.duplicates(parts)
                yield at_most(f"duplicate_{name}s", number / len(parts), most)
                yield at_most(f"duplicate_{name}_characters", characters / len(text), most_characters)
            grams = repetition.WordGrams(tokens(text))
            for length, most in self.max_top_grams:
                share = grams.most_frequent_characters(length) / len(text)
                yield at_most(f"top_{length}_gram", share, most)
            for length, most in self.max_repeated_grams:
                share = grams.repeated_characters(length, most * len(text)) / len(text)
                yield at_most(f"repeated_{length}_grams", share, most)

        return lambda draft: checked(draft, checks(draft.text))
