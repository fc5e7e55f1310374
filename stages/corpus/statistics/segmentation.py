"""Words of languages that put no space between them, by ICU's dictionaries (Unicode Standard Annex 29, section 4).

ROOTS took the pieces of a sentencepiece model for Chinese, and white space for all else: a sentence of Thai was a word.
"""

from __future__ import annotations

# By the codes of ROOTS' table. Words of Latin letters among them are found as well.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my"})


def segments(text: str, language: str) -> list[str]:
    """The words of a text, and what stands between them, in order. `language`: one of UNSPACED."""
    from icu4py.breakers import WordBreaker

    # Half of a surrogate pair is no character: ICU's own refuses the whole text for it.
    return list(WordBreaker(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), language))


def count_words(text: str, language: str) -> int:
    """How many words a text has. In UNSPACED languages: that hold a letter or a digit; else: between white space."""
    if language not in UNSPACED:
        return len(text.split())
    return sum(any(map(str.isalnum, segment)) for segment in segments(text, language))
