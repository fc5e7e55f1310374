"""The perplexity of a text per word under a byte n-gram model."""

from __future__ import annotations

import re

from stages.artifacts.byte_ngrams import CHUNK_BYTES, GramCounts, bits
from stages.model.perplexity import perplexity

# Characters of scripts without spaces between words.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
MAX_BITS = 1000.0  # per word, so that the result is finite


def word_perplexity(counts: GramCounts, text: str) -> float:
    """2^(bits / words), at least 1. Words are separated by white space; the end of each line counts as one (KenLM).

    In scripts without spaces between words, each character counts as a word.
    """
    words = len(text.split()) + text.count("\n") + 1
    words += 0 if text.isascii() else len(_UNSPACED.findall(text))
    total = bits(counts, text.encode("utf-8", "surrogatepass"), CHUNK_BYTES)
    return perplexity(min(total / words, MAX_BITS), base=2)
