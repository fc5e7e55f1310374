"""The one way from texts to tokens. A tokenizer from outside can fail at a text: its regular expressions are its own.

The `tokenizers` library reports an expression that backtracks too often as a panic of Rust, which is a BaseException in
Python: a server would answer it with a plain 500, and a step would end without an explanation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stages.base import ArtifactError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LIMIT_CHARACTERS = 300  # of the library's own message, which an error repeats


class EncodingError(ArtifactError):
    """A tokenizer cannot encode a text."""


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text, without special tokens. Raises EncodingError."""
    with failures(f"a text of {len(text):,} characters"):
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def encode_batch(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without special tokens. Raises EncodingError."""
    with failures(f"one of {len(texts):,} texts"):
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def explained(error: BaseException) -> str:
    """The message of an exception of the `tokenizers` library, in one line. Any other BaseException is raised again."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return " ".join(str(error).split())[:LIMIT_CHARACTERS]


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Raise EncodingError for whatever the `tokenizers` library raises while it encodes. `what`: the text, in words."""
    try:
        yield
    except BaseException as error:
        raise EncodingError(
            f"the tokenizer cannot encode {what} ({explained(error)}): a regular expression of its tokenizer.json does "
            "not end for such a text. Use another tokenizer, or leave such texts out."
        ) from None
