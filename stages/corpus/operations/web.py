"""The rules for web pages of FineWeb (Penedo et al. 2024, arXiv 2406.17557) and C4 (Raffel et al. 2020)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from stages.corpus.operations.operation import Apply, Check, Draft, Drop, Operation, at_least, at_most, checked
from stages.corpus.operations.text_repair import changed

Ratio = Annotated[float, Field(ge=0, le=1)]


class FinewebQuality(Operation):
    """Drops lists and page fragments: unfinished lines, short lines, repeated lines, few words per line.

    FineWeb's own rules (Penedo et al. 2024, arXiv 2406.17557, section 3.6).
    """

    operation: Literal["fineweb_quality"] = "fineweb_quality"
    min_ended_lines: Ratio = 0.12  # share of lines that end with a sentence mark
    max_short_lines: Ratio = 0.67  # share of lines of at most `short_line` characters
    short_line: PositiveInt = 30
    max_duplicate_line_characters: Ratio = 0.01
    max_newlines_per_word: NonNegativeFloat = 0.3

    def function(self) -> Apply:
        from stages.corpus.statistics.repetition import duplicates
        from stages.corpus.statistics.words import lines, sentence_ends, tokens

        ends = sentence_ends()

        def checks(text: str) -> Iterator[Check | Drop]:
            parts = lines(text)
            if not parts:
                yield Drop("empty", 0, 1)
            ended = sum(line[-1] in ends for line in parts) / len(parts)
            yield at_least("ended_lines", ended, self.min_ended_lines)
            short = sum(len(line) <= self.short_line for line in parts) / len(parts)
            yield at_most("short_lines", short, self.max_short_lines)
            newlines = text.count("\n")
            repeated = duplicates(parts)[1] / (len(text) - newlines)
            yield at_most("duplicate_line_characters", repeated, self.max_duplicate_line_characters)
            per_word = newlines / max(len(tokens(text)), 1)
            yield at_most("newlines_per_word", per_word, self.max_newlines_per_word)

        return lambda draft: checked(draft, checks(draft.text))


_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_POLICY = re.compile("terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies", re.IGNORECASE)
_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")


class C4Quality(Operation):
    """Keeps the lines of a page that are sentences; drops pages with placeholder text, code, or too few sentences.

    C4's rules (Raffel et al. 2020, arXiv 1910.10683, section 2.2), without its list of bad words.
    """

    operation: Literal["c4_quality"] = "c4_quality"
    min_sentences: NonNegativeInt = 5
    min_words_per_line: NonNegativeInt = 3
    max_word_length: PositiveInt = 1000  # a line with a longer word is removed
    ended_lines_only: bool = True  # remove lines that don't end with one of . ? ! " or that trail off with "..."
    remove_citations: bool = True  # "[1]", "[edit]", "[citation needed]"
    remove_javascript_lines: bool = True
    remove_policy_lines: bool = True  # about cookies, privacy and terms of use
    drop_lorem_ipsum: bool = True
    drop_curly_brackets: bool = True

    def function(self) -> Apply:
        def apply(draft: Draft) -> Draft | Drop:
            kept: list[str] = []
            sentences = 0
            for raw in draft.text.splitlines():
                line = raw.strip()
                words = line.split()
                if any(len(word) > self.max_word_length for word in words):
                    continue
                if self.remove_citations:
                    line = _CITATION.sub("", line)
                if self.ended_lines_only and (not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")):
                    continue
                if len(words) < self.min_words_per_line:
                    continue
                lowered = line.lower()
                if self.drop_lorem_ipsum and "lorem ipsum" in lowered:
                    return Drop("lorem_ipsum", "lorem ipsum", "none")
                if self.remove_javascript_lines and "javascript" in lowered:
                    continue
                if self.drop_curly_brackets and "{" in line:
                    return Drop("curly_bracket", "{", "none")
                if self.remove_policy_lines and _POLICY.search(line):
                    continue
                sentences += max(len(_END.findall(line)), 1)
                kept.append(line)
            left = changed(draft, "\n".join(kept).strip())
            return checked(left, [at_least("too_few_sentences", sentences, self.min_sentences)])

        return apply
