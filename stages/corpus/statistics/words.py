"""Splits a text into words and marks, as rules for tokenized English expect.

A fast substitute for spaCy's English tokenizer, which datatrove's filters use: words without surrounding punctuation;
clitics ("'s", "n't"), hyphens and other marks as separate tokens; addresses as one token. benchmarks/corpus.py lists
where the two differ and the effect of that.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

_PLAIN = r"[^\W\d_]++(?=[\s,;!?\")])"  # most words, tried first: what follows them leaves no alternative
_URL = r"(?:https?://|www\.|mailto:)[^\s<>\"]*[^\s<>\"'.,;:!?)\]}]"
_MAIL = r"[\w.+-]{1,64}+@[\w-]+(?:\.[\w-]+)*"
_ABBREVIATION = r"(?:[A-Z]|Mrs?|Ms|Dr|Prof|St|Jr|Sr|Gen|Rev|Inc|Corp|Co|Ltd|vs)\.(?!\w)|(?:[A-Za-z]\.){2,}"
_CLITIC = r"['’](?:[sS]|[mM]|[dD]|[lL][lL]|[rR][eE]|[vV][eE])\b"
_NEGATED = r"\w+(?=[nN]['’][tT]\b)|[nN]['’][tT]\b"
_SIGNED = r"(?<![\w)\]])[+-][0-9][\w.,:/-]*\w|(?<![\w)\]])[+-][0-9]"
# Signs within a word: most next to a digit, several in a row, some between any letters.
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
    """The words and marks of a text, in order. Cached, since several rules look at the same text."""
    return tuple(_TOKEN.findall(text))


@lru_cache(maxsize=2)
def lines(text: str) -> tuple[str, ...]:
    """The lines of a text that contain more than white space, unchanged."""
    return tuple(line for line in text.split("\n") if line and not line.isspace())


# Marks of many scripts, and control characters: a token of these is not a word.
_MARKS_ALONE = re.compile(
    "[!/—”:％１〈&(、━\\\\【#%「」，】；+^\\]~“《„';’{|∶´\\[=\\-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»\x00-\x1f\x7f-\xa0"
    "।॥۔؟؞܀-܂፧፨᙮᠃᠉‼-‽⁇-⁉⸮꓿]+"
)


def is_mark(word: str) -> bool:
    """Whether a token consists of punctuation only."""
    return _MARKS_ALONE.fullmatch(word) is not None


@cache
def sentence_ends() -> frozenset[str]:
    """Every character that ends a sentence in some script (Unicode's property Sentence_Terminal)."""
    import sys

    import regex

    every = "".join(map(chr, (code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)))
    return frozenset(regex.findall(r"[\p{Sentence_Terminal}।॥。！？]", every))
