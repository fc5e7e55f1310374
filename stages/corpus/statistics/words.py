"""Splits a text into words and marks, as rules made for tokenized English expect them.

A fast stand-in for the English tokenizer of spaCy, by which datatrove's filters count: words without the punctuation
around them, clitics ("'s", "n't") and hyphens apart, every other mark alone, addresses whole. What the two split in
different ways, and what that changes, benchmarks/corpus.py lists.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

_PLAIN = r"[^\W\d_]++(?=[\s,;!?\")])"  # most words, first: what follows them leaves no other choice
_URL = r"(?:https?://|www\.|mailto:)[^\s<>\"]*[^\s<>\"'.,;:!?)\]}]"
_MAIL = r"[\w.+-]{1,64}+@[\w-]+(?:\.[\w-]+)*"
_ABBREVIATION = r"(?:[A-Z]|Mrs?|Ms|Dr|Prof|St|Jr|Sr|Gen|Rev|Inc|Corp|Co|Ltd|vs)\.(?!\w)|(?:[A-Za-z]\.){2,}"
_CLITIC = r"['’](?:[sS]|[mM]|[dD]|[lL][lL]|[rR][eE]|[vV][eE])\b"
_NEGATED = r"\w+(?=[nN]['’][tT]\b)|[nN]['’][tT]\b"
_SIGNED = r"(?<![\w)\]])[+-][0-9][\w.,:/-]*\w|(?<![\w)\]])[+-][0-9]"
# Signs within a word: most beside a digit, several in a row, some between any letters.
_JOINT = (
    r"(?:(?:(?<![a-z])\.|\.(?![A-Z])|[&@+$*#]|/(?=\d)|(?<=\d)/|(?<=\D)-(?=\d)|(?<=\d)-(?=[^\W\d])|(?<=\d),(?=\d))"
    r"|[=:<>\"!\[](?=\d)|(?<=\d)[=:<>\"!\[]|[=:/<>\"!\[(]{2,8}"
    r"|['’](?![sSmMdD]\b|[lL][lL]\b|[rR][eE]\b|[vV][eE]\b))"
)
_WORD = rf"(?:(?<!\w)/)?\w+(?:{_JOINT}\w+)*"
_SMILEY = r"[:;=]-?[()DP](?!\w)"
_MARKS = r"\.{2,}|-{2,}|[^\w\s]"
_KINDS = (_PLAIN, _URL, _MAIL, _ABBREVIATION, _CLITIC, _NEGATED, _SIGNED, _WORD, _SMILEY, _MARKS)
_TOKEN = re.compile("|".join(_KINDS))


@lru_cache(maxsize=2)
def tokens(text: str) -> tuple[str, ...]:
    """The words and marks of a text, in order. The last texts' are remembered: several rules look at each."""
    return tuple(_TOKEN.findall(text))


@lru_cache(maxsize=2)
def lines(text: str) -> tuple[str, ...]:
    """The lines of a text that hold anything but white space, as they stand."""
    return tuple(line for line in text.split("\n") if line and not line.isspace())


# Marks of many scripts, and controls: a word of these alone is none.
_MARKS_ALONE = re.compile(
    "[!/—”:％１〈&(、━\\\\【#%「」，】；+^\\]~“《„';’{|∶´\\[=\\-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»\x00-\x1f\x7f-\xa0"
    "।॥۔؟؞܀-܂፧፨᙮᠃᠉‼-‽⁇-⁉⸮꓿]+"
)


def is_mark(word: str) -> bool:
    """Whether a word holds nothing but punctuation."""
    return _MARKS_ALONE.fullmatch(word) is not None


@cache
def sentence_ends() -> frozenset[str]:
    """Every character that ends a sentence in some script (Unicode's property Sentence_Terminal)."""
    import sys

    import regex

    every = "".join(map(chr, (code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)))
    return frozenset(regex.findall(r"[\p{Sentence_Terminal}।॥。！？]", every))
