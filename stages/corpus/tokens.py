"""Converts documents to token ids on disk. Every token can be traced to its document."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from pydantic import PositiveInt

from stages.artifacts.corpus import Corpus, Document
from stages.artifacts.encoding import encode_batch
from stages.artifacts.manifest import SPLITS, Split
from stages.artifacts.tokenizer import Tokenizer, TokenizerForecast, tokenizer_step
from stages.artifacts.tokens import (
    FACTS,
    INDEX_TYPES,
    PROVENANCE,
    SplitFacts,
    TokenDataset,
    TokenFacts,
    index_name,
    shard_name,
)
from stages.base import Context, Stage, Stopped
from stages.corpus.tokenization.mixing import Mixing

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer as LoadedTokenizer

BATCH_BYTES = 1 << 22


class TokenizeCorpus(Stage):
    """Converts the documents of a corpus to consecutive token ids."""

    headline: ClassVar[str | None] = "train_tokens"
    version: ClassVar[str] = "2"
    spawns: ClassVar[bool] = False

    corpus: Corpus
    tokenizer: Tokenizer
    mixing: Mixing | None = (
        None  # the proportions of sources or languages in the training split; null: each document once
    )
    shard_tokens: PositiveInt = 1 << 28  # a shard ends with the document that reaches this number

    def forecast(self) -> TokenizerForecast:
        return TokenizerForecast(tokenizer_of=tokenizer_step(self.tokenizer))

    def run(self, ctx: Context) -> TokenDataset:
        tokenizer, end_of_text = self.tokenizer.load(), self.tokenizer.end_of_text
        start = self.tokenizer.document_start
        vocab_size = tokenizer.get_vocab_size()
        token_type: Literal["<u2", "<u4"] = "<u2" if vocab_size <= 1 << 16 else "<u4"
        manifest = self.corpus.manifest
        sizes = {split: manifest.size(split).bytes for split in SPLITS}
        train = self.corpus.documents("train")
        if self.mixing is not None:
            train, sizes["train"] = self._mixture(ctx, self.mixing)
        total = sum(sizes.values())
        splits: dict[Split, SplitFacts] = {}
        done = 0
        for split in SPLITS:
            writer = _SplitWriter(ctx.out, split, token_type, self.shard_tokens)
            for batch in _batches(train if split == "train" else self.corpus.documents(split)):
                if ctx.stopping():
                    writer.close()
                    raise Stopped
                done += sum(writer.add(batch, [[*start, *ids, end_of_text] for ids in _encode(tokenizer, batch)]))
                ctx.progress(done, total, "bytes")
            splits[split] = writer.close()
        facts = TokenFacts(
            token_type=token_type,
            vocab_size=vocab_size,
            end_of_text=end_of_text,
            document_start=start,
            splits=splits,
        )
        (ctx.out / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
        dataset = TokenDataset(ctx.out)
        shutil.copyfile(self.tokenizer.file, dataset.tokenizer_path)
        for split, found in splits.items():
            ctx.metrics({f"{split}_tokens": found.tokens, f"{split}_documents": found.documents})
        words = sum(found.tokens - (len(start) + 1) * found.documents for found in splits.values())
        ctx.metrics({"bytes_per_token": sum(found.bytes for found in splits.values()) / max(words, 1)})
        return dataset

    def _mixture(self, ctx: Context, mixing: Mixing) -> tuple[Iterator[Document], int]:
        """The training documents as often as each is drawn, and their approximate bytes. Reports the proportions."""
        held = mixing.sizes(self.corpus.documents("train"))
        sources = self.corpus.manifest.sources
        weights = {name: facts.weight for name, facts in sources.items()} if mixing.by == "source" else {}
        epochs = mixing.epochs(held, weights)
        total = sum(held[name] * epochs[name] for name in held)
        for name, size in held.items():
            label = re.sub(r"[^A-Za-z0-9_.-]", "_", name) or "none"
            ctx.metrics({f"epochs_{label}": epochs[name], f"share_{label}": size * epochs[name] / total})
        if absent := [name or "(none)" for name in held if not epochs[name]]:
            ctx.note(f"not in the mixture, since they have no ratio: {', '.join(absent)}")
        return mixing.mixed(lambda: self.corpus.documents("train"), epochs), int(total)


class _SplitWriter:
    """Writes the shards and the index of one split."""

    def __init__(self, folder: Path, split: Split, token_type: str, shard_tokens: int) -> None:
        self._folder, self._split, self._type, self._limit = folder, split, token_type, shard_tokens
        self._shards: list[int] = []
        self._file: BinaryIO | None = None
        self._tokens = self._documents = self._bytes = 0
        self._index: pa.RecordBatchFileWriter | None = None

    def add(self, documents: list[Document], encoded: list[list[int]]) -> list[int]:
        """Append documents, each `encoded` with the tokens that begin and end it; returns the bytes of each text."""
        import numpy as np
        import pyarrow as pa

        starts, sizes = [], [len(document.text.encode()) for document in documents]
        for ids in encoded:
            starts.append(self._tokens)
            tokens = np.array(ids, dtype=self._type)
            if self._file is None or self._shards[-1] >= self._limit:
                self._next_shard()
            assert self._file is not None
            self._file.write(tokens.tobytes())
            self._shards[-1] += len(tokens)
            self._tokens += len(tokens)
        self._documents += len(documents)
        self._bytes += sum(sizes)
        columns = {name: [getattr(document, name) for document in documents] for name in PROVENANCE}
        batch = pa.record_batch({"start": starts, "bytes": sizes, **columns}, schema=_schema())
        self._open_index().write_batch(batch)
        return sizes

    def close(self) -> SplitFacts:
        if self._file is not None:
            self._file.close()
        self._open_index().close()
        return SplitFacts(documents=self._documents, tokens=self._tokens, bytes=self._bytes, shards=tuple(self._shards))

    def _next_shard(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = (self._folder / shard_name(self._split, len(self._shards))).open("wb")
        self._shards.append(0)

    def _open_index(self) -> pa.RecordBatchFileWriter:
        import pyarrow as pa

        if self._index is None:
            self._index = pa.ipc.new_file(str(self._folder / index_name(self._split)), _schema())
        return self._index


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, kind) for name, kind in INDEX_TYPES.items()])


def _encode(tokenizer: LoadedTokenizer, documents: list[Document]) -> list[list[int]]:
    return encode_batch(tokenizer, [document.text for document in documents])


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    pending = 0
    for document in documents:
        batch.append(document)
        pending += len(document.text)
        if pending >= BATCH_BYTES:
            yield batch
            batch, pending = [], 0
    if batch:
        yield batch
