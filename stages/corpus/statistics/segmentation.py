"""Words of languages without spaces between words, by ICU's dictionaries (Unicode Standard Annex 29, section 4).

ROOTS used the pieces of a sentencepiece model for Chinese and white space otherwise, so a Thai sentence was one word.
"""

from __future__ import annotations

# Codes of ROOTS' table. Words in Latin letters within such texts are found as well.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my"})


def segments(text: str, language: str) -> list[str]:
    """The words of a text and the segments between them, in order. `language`: one of UNSPACED."""
    from icu4py.breakers import WordBreaker

    # ICU refuses a text with a lone surrogate.
    return list(WordBreaker(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), language))


def count_words(text: str, language: str) -> int:
    """The number of words of a text: in UNSPACED languages, segments with a letter or digit; else by white space."""
    if language not in UNSPACED:
        return len(text.split())
    return sum(any(map(str.isalnum, segment)) for segment in segments(text, language))
