"""A token dataset from given texts, for tests of training on real tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import ByteLevelBPETokenizer

from stages.artifacts.manifest import Split
from stages.artifacts.tokenizer import END_OF_TEXT, SPECIAL_TOKENS, TOKENIZER
from stages.artifacts.tokens import FACTS, INDEX_TYPES, PROVENANCE, TokenDataset, index_name, shard_name


def token_set(path: Path, splits: Mapping[Split, Sequence[str]], vocab_size: int) -> TokenDataset:
    """Train a tokenizer on the train split and write both splits' tokens below `path`."""
    path.mkdir(parents=True)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        splits["train"], vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.save(str(path / TOKENIZER))
    facts = {}
    for name, texts in splits.items():
        encoded = [[*one.ids, END_OF_TEXT] for one in tokenizer.encode_batch(list(texts))]
        tokens = np.concatenate([np.asarray(ids, "<u2") for ids in encoded])
        tokens.tofile(path / shard_name(name, 0))
        sizes = [len(text.encode()) for text in texts]
        columns = {
            "start": np.cumsum([0, *map(len, encoded[:-1])]),
            "bytes": np.asarray(sizes),
            **{field: [f"{field} {number}" for number in range(len(texts))] for field in PROVENANCE},
        }
        table = pa.table({field: pa.array(columns[field], kind) for field, kind in INDEX_TYPES.items()})
        with pa.ipc.new_file(str(path / index_name(name)), table.schema) as writer:
            writer.write_table(table)
        facts[name] = {"documents": len(texts), "tokens": len(tokens), "bytes": sum(sizes), "shards": [len(tokens)]}
    described = {
        "token_type": "<u2",
        "vocab_size": tokenizer.get_vocab_size(),
        "end_of_text": END_OF_TEXT,
        "splits": facts,
    }
    (path / FACTS).write_text(json.dumps(described))
    return TokenDataset(path)
