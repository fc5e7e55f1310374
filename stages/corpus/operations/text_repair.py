"""Repairs and normalises text: wrong decoding, Unicode forms, white space, HTML entities, sentences."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import Literal

from pydantic import NonNegativeInt

from stages.corpus.operations.operation import Apply, Draft, Drop, Operation, at_most, checked


def changed(draft: Draft, text: str) -> Draft:
    """The draft with another text; the same object if the text is equal."""
    return draft if text == draft.text else replace(draft, text=text)


class RepairUnicode(Operation):
    """Repairs wrong decoding ("schÃ¶n"), HTML entities and terminal escapes with ftfy."""

    operation: Literal["repair_unicode"] = "repair_unicode"
    entities: bool = False  # "&amp;" becomes "&" even in a text with tags
    straight_quotes: bool = False  # curly quotes become straight ones
    ligatures: bool = False  # the Latin ligature "ﬁ" becomes "fi"

    def function(self) -> Apply:
        import ftfy

        config = ftfy.TextFixerConfig(
            unescape_html=True if self.entities else "auto",
            uncurl_quotes=self.straight_quotes,
            fix_latin_ligatures=self.ligatures,
            normalization=None,  # see the operation `normalise`
            explain=False,
        )
        return lambda draft: changed(draft, ftfy.fix_text(draft.text, config))


class Normalise(Operation):
    """Normalises equivalent code point sequences (Unicode Standard Annex 15)."""

    operation: Literal["normalise"] = "normalise"
    form: Literal["NFC", "NFD", "NFKC", "NFKD"] = "NFC"

    def function(self) -> Apply:
        form = self.form

        def apply(draft: Draft) -> Draft:
            same = unicodedata.is_normalized(form, draft.text)
            return draft if same else changed(draft, unicodedata.normalize(form, draft.text))

        return apply


_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_BLANKS = re.compile("[ \t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u2060\ufeff]")


class WhiteSpace(Operation):
    """Normalises white space and line ends, strips lines and the text, and removes control characters."""

    operation: Literal["white_space"] = "white_space"
    max_empty_lines: NonNegativeInt = 1  # consecutive ones
    indentation: bool = False  # keep white space at the start of lines and within them (for code)

    def function(self) -> Apply:
        empty = re.compile(f"\n{{{self.max_empty_lines + 2},}}")
        kept = "\n" * (self.max_empty_lines + 1)

        def apply(draft: Draft) -> Draft:
            text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", draft.text))
            if self.indentation:
                text = "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")
            else:
                text = "\n".join(line.strip() for line in _BLANKS.sub(" ", text).split("\n")).strip()
            return changed(draft, empty.sub(kept, text))

        return apply


class NewlinesToSpaces(Operation):
    """Replaces newlines by spaces, for text that was wrapped at a fixed width (ROOTS: replace_newline_with_space)."""

    operation: Literal["newlines_to_spaces"] = "newlines_to_spaces"

    def function(self) -> Apply:
        return lambda draft: changed(draft, draft.text.replace("\n", " "))


# The end of a sentence in the scripts of ROOTS' languages, closing marks, and the space after them.
_SENTENCE_END = re.compile(
    r"(?<=[.!?…۔؟।॥])([\"'”’»)\]]*)[ \t]+(?=[\"'“‘«(\[¿¡]*[^\W\d_a-zà-ÿ])|(?<=[。！？])([”’」』）]*)(?=\S)"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|Mrs?|Ms|Dr|Prof|St|Sr|Jr|vs|etc|e\.g|i\.e|cf|No|Fig|Vol|pp?|Sra?|Mme|Mlle))\.$"
)


class SplitSentences(Operation):
    """Writes one sentence per line, split at marks before a capital (ROOTS: split_sentences_*, a tool per language)."""

    operation: Literal["split_sentences"] = "split_sentences"

    def function(self) -> Apply:
        def apply(draft: Draft) -> Draft:
            return changed(draft, "\n".join(map(_split, draft.text.split("\n"))))

        return apply


def _split(line: str) -> str:
    parts, start = [], 0
    for match in _SENTENCE_END.finditer(line):
        if not _ABBREVIATION.search(line, max(start, match.start() - 8), match.start()):
            closing = match.group(1) or match.group(2) or ""
            parts.append(line[start : match.start()] + closing)
            start = match.end()
    return "\n".join([*parts, line[start:]])


class ReplacementCharacters(Operation):
    """Drops texts with too many replacement characters (U+FFFD), which decoders write for undecodable bytes."""

    operation: Literal["replacement_characters"] = "replacement_characters"
    max_ratio: float = 0.001  # per character

    def function(self) -> Apply:
        def apply(draft: Draft) -> Draft | Drop:
            found = draft.text.count("\ufffd") / max(len(draft.text), 1)
            return checked(draft, [at_most("replacement_characters", found, self.max_ratio)])

        return apply
