"""Tokenized documents in memory-mapped shards, with an index from every token back to its document.

SPLIT-NNNNN.tokens     token ids, little endian, uint16 (uint32 if the vocabulary has more than 65,536 tokens): the
                       documents in order, before each the special tokens that its tokenizer puts before a text (often
                       none), after each an end-of-text token; no document spans two shards
SPLIT.documents.arrow  Arrow IPC file with one row per document in token order: its first token and its provenance
dataset.json           token type, vocabulary size, end-of-text id, tokens of each shard
tokenizer.json         the tokenizer that produced the tokens
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.artifacts.manifest import Split
from stages.artifacts.tokenizer import TOKENIZER, Tokenizer
from stages.base import Artifact, ArtifactError, Config, StageError
from stages.json_files import read_json
from stages.model.config import DecoderConfig

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FACTS = "dataset.json"
FACTS_LIMIT_BYTES = 64 << 20
CHECK_TOKENS = 1 << 22  # tokens that are checked at a time
PROVENANCE = ("id", "source", "path", "url", "package", "license", "language", "operations")
INDEX_TYPES = {"start": "int64", "bytes": "int64", **dict.fromkeys(PROVENANCE, "string")}


class SplitFacts(Config):
    """The sizes of one split. `tokens` includes those that begin and end documents; `bytes` are the texts' in UTF-8."""

    documents: NonNegativeInt
    tokens: NonNegativeInt
    bytes: NonNegativeInt
    shards: tuple[PositiveInt, ...]  # tokens of each


class TokenFacts(Config):
    """The token type and the sizes of a token dataset."""

    token_type: Literal["<u2", "<u4"]
    vocab_size: int = Field(gt=0, le=1 << 32)
    end_of_text: NonNegativeInt
    document_start: tuple[NonNegativeInt, ...] = ()  # the tokens that begin every document
    splits: Mapping[Split, SplitFacts]


@dataclass(frozen=True)
class TokenRange:
    """One document of a split: its tokens [start, stop), the last of which is the end of text, and its provenance.

    The first ones are those that begin every document, if any.
    """

    start: int
    stop: int
    bytes: int  # of the text in UTF-8
    id: str
    source: str
    path: str
    url: str
    package: str
    license: str
    language: str
    operations: str  # the hash of the operations that its text went through: `SourceFacts.chain` of the corpus


class ShardedTokens:
    """The token ids of several memory-mapped shards as one read-only sequence.

    `tokens[i]` is an int. `tokens[a:b]` is an array: a view of the file if the range is within one shard, otherwise a
    copy.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self._shards = shards
        self._ends: list[int] = []
        for shard in shards:
            self._ends.append(len(self) + len(shard))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, where: int | slice) -> int | np.ndarray:
        import numpy as np

        if not isinstance(where, slice):
            position = where + len(self) if where < 0 else where
            if not 0 <= position < len(self):
                raise IndexError(f"token {where} is out of range: there are {len(self)} tokens")
            shard = bisect_right(self._ends, position)
            return int(self._shards[shard][position - self._ends[shard]])
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise ValueError("a slice of tokens must have step 1")
        parts = []
        shard = bisect_right(self._ends, start)
        while start < stop:
            end = min(stop, self._ends[shard])
            offset = self._ends[shard] - len(self._shards[shard])
            parts.append(self._shards[shard][start - offset : end - offset])
            start, shard = end, shard + 1
        if not parts:
            return np.empty(0, self._shards[0].dtype if self._shards else np.uint16)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class TokenSplit:
    """The tokens of a split and the documents that they belong to."""

    tokens: ShardedTokens
    starts: np.ndarray  # int64 [documents]: the first token of each document, ascending from 0
    index: pa.Table

    @property
    def length(self) -> int:
        """The number of tokens."""
        return len(self.tokens)

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.starts)

    def document(self, index: int) -> TokenRange:
        """The document at `index` (from 0). Raises IndexError if there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} is out of range: there are {len(self)} documents")
        row = self.index.slice(index, 1).to_pylist()[0]
        stop = int(self.starts[index + 1]) if index + 1 < len(self) else self.length
        return TokenRange(stop=stop, **row)

    def document_at(self, position: int) -> TokenRange:
        """The document that the token at `position` (from 0) belongs to. Raises IndexError if there is none."""
        if not 0 <= position < self.length:
            raise IndexError(f"token {position} is out of range: there are {self.length} tokens")
        return self.document(self._place(position))

    def documents_in(self, start: int, stop: int) -> Iterator[TokenRange]:
        """The documents that have a token in [start, stop), in order. Raises IndexError if the range is not within the
        split."""
        if start >= stop:
            return
        if start < 0 or stop > self.length:
            raise IndexError(f"tokens {start} to {stop} are out of range: there are {self.length} tokens")
        for index in range(self._place(start), self._place(stop - 1) + 1):
            yield self.document(index)

    def _place(self, position: int) -> int:
        return int(self.starts.searchsorted(position, side="right")) - 1


@dataclass(frozen=True)
class TokenDataset(Artifact):
    """A corpus as token ids, ready for training."""

    is_dataset: ClassVar[bool] = True

    @cached_property
    def facts(self) -> TokenFacts:
        """Raises ArtifactError if dataset.json is missing or does not describe a token dataset."""
        return read_json(self.path / FACTS, TokenFacts, "a token dataset's facts", FACTS_LIMIT_BYTES)

    @property
    def vocab_size(self) -> int:
        """The number of tokens of the tokenizer. Every token id is below it."""
        return self.facts.vocab_size

    @property
    def end_of_text(self) -> int:
        """The id of the token that follows every document."""
        return self.facts.end_of_text

    def trained_config(self, config: DecoderConfig, separate_documents: bool) -> DecoderConfig:
        """The config of a model that is trained on these tokens: with the record of how a document begins.

        separate_documents: whether attention stays within a document, so that its first token sees nothing before it.

        Raises StageError if the documents do not end as the texts of the model do.
        """
        if self.end_of_text not in config.end_tokens:
            raise StageError(
                f"documents end with token {self.end_of_text} in {self.path}, but texts of the model with token "
                f"{config.eos_token_id}: set the model's eos_token_id to {self.end_of_text}"
            )
        before = () if separate_documents else (self.end_of_text,)
        return config.model_copy(update={"document_start": self.facts.document_start or before})

    @property
    def tokenizer_path(self) -> Path:
        """The path of the `tokenizer.json` that produced the tokens, of which a checkpoint keeps a copy."""
        return self.path / TOKENIZER

    def split(self, name: Split) -> TokenSplit:
        """Open a split. Its shards are memory-mapped, not read.

        Raises ArtifactError if a shard is missing or has another length than recorded, or if the documents of the index
        do not cover the tokens without gaps.
        """
        import numpy as np

        facts = self.facts.splits[name]
        item_bytes = np.dtype(self.facts.token_type).itemsize
        shards = []
        for number, expected in enumerate(facts.shards):
            path = self.path / shard_name(name, number)
            try:
                size = path.stat().st_size
            except OSError as error:
                raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
            if size != expected * item_bytes:
                raise ArtifactError(
                    f"{path} has {size} bytes, but {expected} tokens of {item_bytes} bytes were recorded: the file was "
                    "truncated or overwritten; run the step that produced it again"
                )
            shards.append(np.memmap(path, dtype=self.facts.token_type, mode="r"))
        index = self._index(name)
        starts = index["start"].to_numpy()
        tokens = ShardedTokens(shards)
        if len(tokens) != facts.tokens or len(starts) != facts.documents:
            raise ArtifactError(
                f"{self.path}: split {name} has {len(tokens)} tokens and {len(starts)} documents, but {FACTS} says "
                f"{facts.tokens} and {facts.documents}"
            )
        bounds = np.append(starts, len(tokens))
        if bounds[0] != 0 or (np.diff(bounds) <= 0).any():
            raise ArtifactError(f"{self.path / index_name(name)}: the documents do not cover the split without gaps")
        return TokenSplit(tokens, starts, index)

    def check(self) -> None:
        """Check that every token is in the vocabulary and that end-of-text tokens are at the ends of documents (and at
        their starts, if a document begins with one) and nowhere else."""
        import numpy as np

        if (found := Tokenizer(self.path).vocab_size) != self.vocab_size:
            raise ArtifactError(f"{self.tokenizer_path} has {found} tokens, but {FACTS} says {self.vocab_size}")
        for name in self.facts.splits:
            split = self.split(name)
            places = [np.append(split.starts[1:], split.length) - 1]
            for offset, token in enumerate(self.facts.document_start):
                if token == self.end_of_text:
                    places.append(split.starts + offset)
            ends = np.unique(np.concatenate(places))
            for start in range(0, split.length, CHECK_TOKENS):
                tokens = np.asarray(split.tokens[start : start + CHECK_TOKENS])
                if int(tokens.max()) >= self.vocab_size:
                    raise ArtifactError(
                        f"{self.path}: split {name} holds token {tokens.max()}, but vocab_size is {self.vocab_size}"
                    )
                expected = ends[(ends >= start) & (ends < start + len(tokens))] - start
                if not np.array_equal(np.flatnonzero(tokens == self.end_of_text), expected):
                    raise ArtifactError(
                        f"{self.path}: split {name}: from token {start} on, the end-of-text tokens are not at the "
                        "bounds of the documents"
                    )
            if int(split.index["bytes"].to_numpy().sum()) != self.facts.splits[name].bytes:
                raise ArtifactError(f"{self.path}: split {name}: the bytes of documents do not add up to {FACTS}")

    def describe(self) -> Mapping[str, object]:
        facts = self.facts
        return {
            "vocab_size": facts.vocab_size,
            "splits": {
                name: {"documents": split.documents, "tokens": split.tokens, "bytes": split.bytes}
                for name, split in facts.splits.items()
            },
        }

    def _index(self, name: Split) -> pa.Table:
        import pyarrow as pa

        path = self.path / index_name(name)
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            table.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{path} is not a readable Arrow file: {error}") from None
        if {field.name: str(field.type) for field in table.schema} != INDEX_TYPES:
            found = ", ".join(table.column_names)
            raise ArtifactError(f"{path} has columns {found}; expected {', '.join(INDEX_TYPES)}")
        if any(column.null_count for column in table.columns):
            raise ArtifactError(f"{path} has null values; expected a value in every cell of an index of documents")
        return table


def shard_name(split: Split, index: int) -> str:
    return f"{split}-{index:05d}.tokens"


def index_name(split: Split) -> str:
    return f"{split}.documents.arrow"
