"""How a document begins: the tokens that a model sees before the first one of a text.

Every stage that shows a model the beginning of a text asks `document_start`. What it gives was recorded when the model
was made:

- A tokenizer that puts special tokens before a text (a "beginning of sequence") puts them before every document of the
  training data, and so before every text.
- Without such tokens, a model that was trained on separate documents saw nothing before the first token of one: not the
  end of the previous text either, since attention does not cross it.
- A model whose attention crosses documents saw the end of the previous text.

A checkpoint without the record was made before there was one: it has what its tokenizer puts before a text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from stages.artifacts.encoding import failures
from stages.model.config import DecoderConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def document_start(config: DecoderConfig, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens before the first token of a text; none for a model that begins with the text itself."""
    return tokenizer_start(tokenizer) if config.document_start is None else config.document_start


def tokenizer_start(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special tokens that a tokenizer itself puts before a text."""
    return _special_ends(tokenizer)[0]


def starting_with(tokenizer: Tokenizer, start: Sequence[int]) -> Tokenizer:
    """The same tokenizer, except that it puts the tokens `start` before a text."""
    end = _special_ends(tokenizer)[1]
    ids = {tokenizer.id_to_token(index): index for index in (*start, *end)}
    before, after = (
        [{"SpecialToken": {"id": tokenizer.id_to_token(index), "type_id": 0}} for index in side]
        for side in (start, end)
    )
    first, second = ([{"Sequence": {"id": name, "type_id": 0}}] for name in "AB")
    values = json.loads(tokenizer.to_str())
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": before + first + after,
        "pair": before + first + after + before + second + after,
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]} for token, index in ids.items()},
    }
    changed = type(tokenizer).from_str(json.dumps(values))
    changed.encode_special_tokens = tokenizer.encode_special_tokens
    return changed


def _special_ends(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that a tokenizer puts before and after a text."""
    with failures("a text of one character"):
        encoding = tokenizer.encode("x", add_special_tokens=True)
    pairs = list(zip(encoding.ids, encoding.special_tokens_mask, strict=True))
    before, after = ([index for index, _ in takewhile(lambda pair: pair[1], side)] for side in (pairs, reversed(pairs)))
    return tuple(before), tuple(reversed(after))
