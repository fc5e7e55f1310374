"""A byte-level BPE tokenizer, as the `tokenizers` library stores it.

tokenizer.json   vocabulary, merges, pre-tokenizer and special tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stages.base import Artifact, ArtifactError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LoadedTokenizer

TOKENIZER = "tokenizer.json"
FILE_LIMIT_BYTES = 256 << 20

# BLOOM's special tokens; the position is the id.
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
UNKNOWN, BEGIN_OF_TEXT, END_OF_TEXT, PADDING = range(4)


@dataclass(frozen=True)
class Tokenizer(Artifact):
    """Text to token ids and back, without loss."""

    unknown: ClassVar[int] = UNKNOWN
    begin_of_text: ClassVar[int] = BEGIN_OF_TEXT
    end_of_text: ClassVar[int] = END_OF_TEXT
    padding: ClassVar[int] = PADDING

    @property
    def file(self) -> Path:
        """The `tokenizer.json`: a checkpoint keeps a copy of it."""
        return self.path / TOKENIZER

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self.load().get_vocab_size())

    def load(self) -> LoadedTokenizer:
        """The tokenizer. Text is only text to it: "</s>" in a document becomes letters, never an end of text."""
        from tokenizers import Tokenizer as LoadedTokenizer

        try:
            if self.file.stat().st_size > FILE_LIMIT_BYTES:
                raise ArtifactError(f"{self.file} is larger than {FILE_LIMIT_BYTES} bytes: not a tokenizer")
            loaded = LoadedTokenizer.from_file(str(self.file))
        except OSError as error:
            raise ArtifactError(f"{self.file} cannot be read: {error.strerror}") from None
        except ArtifactError:
            raise
        except Exception as error:  # the library raises plain Exception
            raise ArtifactError(f"{self.file} is not a tokenizer: {error}") from None
        loaded.encode_special_tokens = True
        return loaded

    def check(self) -> None:
        loaded = self.load()
        for index, token in enumerate(SPECIAL_TOKENS):
            if loaded.token_to_id(token) != index:
                found = loaded.token_to_id(token)
                raise ArtifactError(f"{self.file}: special token {token} has the id {found}, expected {index}")

    def describe(self) -> Mapping[str, object]:
        return {"vocab_size": self.vocab_size, "special_tokens": dict(enumerate(SPECIAL_TOKENS))}
