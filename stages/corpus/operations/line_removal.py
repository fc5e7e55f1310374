"""Removes lines and passages, like ROOTS' cleaning of single sources (arXiv 2303.03915, section 3.1 and appendix)."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from stages.corpus.operations.operation import Apply, Draft, Operation
from stages.corpus.operations.text_repair import changed
from stages.corpus.operations.word_lists import WordList, stop_words

# ROOTS' lists of substrings, by the name of its cleaning step.
LINE_LISTS: dict[str, tuple[str, ...]] = {
    "code": ("{", "}", "[if", "<script"),
    "html_spans": ("<span", "</span>", "<div", "</div>", "<a", "</a>", "br>"),
    "html_spans_sanad": (
        *("<img", "]]>", "<![CDATA", "//DW", "var ", "xtImg"),
        "To view this video please enable JavaScript",
    ),
    "wiki_mojibake": ("À À",),
}
SUBSTRING_LISTS: dict[str, tuple[str, ...]] = {
    "en_wiktionary": (
        "This entry needs pronunciation information",
        "Please try to find a suitable image on Wikimedia Commons or upload one there yourself!",
        "You may continue to edit this entry while the discussion proceeds, but please mention significant edits at "
        "the RFD discussion and ensure that the intention of votes already cast is not left unclear",
        "This entry is part of the phrasebook project, which presents criteria for inclusion based on utility, "
        "simplicity and commonality",
        "If you are a native speaker with a microphone, please record some and upload them",
        "If you are familiar with the IPA then please add some!",
        "Feel free to edit this entry as normal, but do not remove {{rfv}} until the request has been resolved",
        "This entry needs quotations to illustrate usage",
        "Please see that page for discussion and justifications",
        "If you are familiar with the IPA or enPR then please add some!",
        "A user has added this entry to requests for verification(+) If it cannot be verified that this term meets our "
        "attestation criteria, it will be deleted",
        "This entry needs a photograph or drawing for illustration",
        "A user has added this entry to requests for deletion(+)",
        "Do not remove the {{rfd}} until the debate has finished",
        "This entry needs audio files",
        "If you come across any interesting, durably archived quotes then please add them!",
        "(For audio required quickly, visit WT:APR)",
    ),
}


class RemoveLines(Operation):
    """Removes every line that contains one of several strings (ROOTS: remove_lines_with_code, remove_html_spans)."""

    operation: Literal["remove_lines"] = "remove_lines"
    lists: tuple[Literal["code", "html_spans", "html_spans_sanad", "wiki_mojibake"], ...] = ()  # of ROOTS
    substrings: tuple[str, ...] = ()  # further strings

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _check(self.lists, self.substrings)
        return self

    def function(self) -> Apply:
        unwanted = _any_of(self.lists, self.substrings, LINE_LISTS)

        def apply(draft: Draft) -> Draft:
            if not unwanted.search(draft.text):
                return draft
            return changed(draft, "\n".join(line for line in draft.text.split("\n") if not unwanted.search(line)))

        return apply


class RemoveSubstrings(Operation):
    """Removes strings from the text (ROOTS: strip_substrings_en_wiktionary)."""

    operation: Literal["remove_substrings"] = "remove_substrings"
    lists: tuple[Literal["en_wiktionary"], ...] = ()  # of ROOTS
    substrings: tuple[str, ...] = ()  # further strings

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _check(self.lists, self.substrings)
        return self

    def function(self) -> Apply:
        unwanted = _any_of(self.lists, self.substrings, SUBSTRING_LISTS)
        return lambda draft: changed(draft, unwanted.sub("", draft.text))


class RemoveReferences(Operation):
    """Removes the lines at the end of a text that have too few stop words: the references of an article.

    ROOTS: remove_references_{language}. For languages with spaces between words.
    """

    operation: Literal["remove_references"] = "remove_references"
    language: str = ""  # of the stop words; empty: that of the document. Without stop words, the text is unchanged
    min_stop_word_ratio: float = Field(default=0.2, ge=0, lt=1)  # share of stop words above which a line is prose
    stop_words: WordList | None = None  # instead of the known stop words of the language

    def function(self) -> Apply:
        def apply(draft: Draft) -> Draft:
            listed = stop_words(self.language or draft.language, self.stop_words)
            if not listed:
                return draft
            lines = draft.text.split("\n")
            end = len(lines)
            while end and not _is_prose(lines[end - 1], listed, self.min_stop_word_ratio):
                end -= 1
            return changed(draft, "\n".join(lines[:end]))

        return apply


def _is_prose(line: str, listed: frozenset[str], ratio: float) -> bool:
    words = line.lower().split()
    return sum(word in listed for word in words) > len(words) * ratio


def _check(lists: tuple[str, ...], substrings: tuple[str, ...]) -> None:
    if not lists and not substrings:
        raise ValueError("nothing to remove: set lists or substrings")
    if not all(substrings):
        raise ValueError("an empty substring would match every line")


def _any_of(lists: tuple[str, ...], substrings: tuple[str, ...], known: dict[str, tuple[str, ...]]) -> re.Pattern[str]:
    wanted = {*substrings, *(substring for name in lists for substring in known[name])}
    longest_first = sorted(wanted, key=lambda substring: (-len(substring), substring))
    return re.compile("|".join(map(re.escape, longest_first)))
