"""A byte-level BPE tokenizer in the format of the `tokenizers` library.

tokenizer.json        vocabulary, merges, pre-tokenizer and special tokens
special_tokens.json   the token that ends a text; absent if the special tokens are BLOOM's
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.document_start import tokenizer_start
from stages.artifacts.encoding import explained
from stages.base import Artifact, ArtifactError, Edge, Forecast, StageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LoadedTokenizer

TOKENIZER, SPECIAL = "tokenizer.json", "special_tokens.json"
FILE_LIMIT_BYTES, SPECIAL_LIMIT_BYTES = 256 << 20, 1 << 16

# BLOOM's special tokens; the position is the id.
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
END_OF_TEXT = SPECIAL_TOKENS.index("</s>")


class TokenizerForecast(Forecast):
    """Whose tokenizer an artifact will hold, or was made with."""

    tokenizer_of: str | None = None  # the step that makes the tokenizer; "": this one; None: not known


def tokenizer_step(field: object) -> str | None:
    """The step that makes the tokenizer of an artifact field; None if it is not known before that step has run."""
    if not isinstance(field, Edge) or not isinstance(field.forecast, TokenizerForecast):
        return None
    found = field.forecast.tokenizer_of
    return field.step if found == "" else found


def refuse_other_tokenizer(model: object, tokens: object) -> None:
    """Raise StageError if two artifact fields, of a checkpoint and of a token dataset, are known to have different
    tokenizers before their steps have run."""
    of_model, of_tokens = tokenizer_step(model), tokenizer_step(tokens)
    if isinstance(model, Edge) and isinstance(tokens, Edge) and of_model and of_tokens and of_model != of_tokens:
        raise StageError(
            f"{model.step} and {tokens.step} have different tokenizers, those of {of_model} and of {of_tokens}, so the "
            f"ids of {tokens.step} mean other tokens to the model: tokenize the text with the tokenizer of "
            f"{of_model} (a step with `stage: model_tokenizer, model: {model.step}` makes it)"
        )


def check_same_tokenizer(model: Path, tokens: Path) -> None:
    """Raise StageError if the tokenizer.json of a checkpoint and that of a token dataset are different tokenizers."""
    if model.read_bytes() == tokens.read_bytes():
        return
    ours, theirs = (Tokenizer(path.parent).load() for path in (model, tokens))
    if ours.to_str() != theirs.to_str():
        raise StageError(
            f"the checkpoint's tokenizer ({ours.get_vocab_size()} tokens) is not the one that the text was tokenized "
            f"with ({theirs.get_vocab_size()} tokens): tokenize it with the tokenizer of the checkpoint, which a step "
            "with `stage: model_tokenizer` takes from it"
        )


@dataclass(frozen=True)
class Tokenizer(Artifact):
    """Converts text to token ids and back, without loss."""

    @property
    def file(self) -> Path:
        """The path of `tokenizer.json`, of which a checkpoint keeps a copy."""
        return self.path / TOKENIZER

    @property
    def end_of_text(self) -> int:
        """The id of the token that ends every text. Raises ArtifactError if the file that names it is not valid."""
        path = self.path / SPECIAL
        if not path.exists():
            return END_OF_TEXT
        try:
            found = json.loads(path.read_bytes()[:SPECIAL_LIMIT_BYTES])["end_of_text"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            found = None
        if not isinstance(found, int) or isinstance(found, bool) or self.load().id_to_token(found) is None:
            raise ArtifactError(f"{path} does not name a token of {TOKENIZER} as `end_of_text`")
        return found

    @property
    def document_start(self) -> tuple[int, ...]:
        """The ids of the special tokens that begin every text, by the tokenizer itself; often none."""
        return tokenizer_start(self.load())

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special tokens included."""
        return int(self.load().get_vocab_size())

    def load(self) -> LoadedTokenizer:
        """The tokenizer. A special token that is written out in a text, such as "</s>", is encoded as ordinary letters.
        Texts are neither cut nor padded, whatever the file says.

        Raises ArtifactError if the file is missing, too large or not a tokenizer.
        """
        from tokenizers import Tokenizer as LoadedTokenizer

        try:
            if self.file.stat().st_size > FILE_LIMIT_BYTES:
                raise ArtifactError(f"{self.file} is larger than {FILE_LIMIT_BYTES} bytes: not a tokenizer")
            loaded = LoadedTokenizer.from_file(str(self.file))
        except OSError as error:
            raise ArtifactError(f"{self.file} cannot be read: {error.strerror}") from None
        except ArtifactError:
            raise
        except BaseException as error:  # the library raises plain Exception, and panics
            raise ArtifactError(f"{self.file} is not a tokenizer: {explained(error)}") from None
        loaded.encode_special_tokens = True
        loaded.no_truncation()
        loaded.no_padding()
        return loaded

    def check(self) -> None:
        loaded = self.load()
        if (self.path / SPECIAL).exists():
            _ = self.end_of_text
            return
        for index, token in enumerate(SPECIAL_TOKENS):
            if loaded.token_to_id(token) != index:
                found = loaded.token_to_id(token)
                raise ArtifactError(f"{self.file}: special token {token} has id {found}, expected {index}")

    def describe(self) -> Mapping[str, object]:
        return {"vocab_size": self.vocab_size, "end of text": self.load().id_to_token(self.end_of_text)}
