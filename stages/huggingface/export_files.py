"""A model's tensors and tokenizer written as Hugging Face's libraries look for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from stages.huggingface.families import Family
from stages.huggingface.model_directory import INDEX, TOKENIZER, WEIGHTS
from stages.huggingface.tensor_conversion import export_tensors, exported_shapes
from stages.model.config import DecoderConfig
from stages.model.safetensors_files import TensorFiles, TensorHeader, TensorWriter


@dataclass(frozen=True)
class Written:
    """What was written of a model."""

    tensors: int
    files: int
    nbytes: int  # of tensors
    dtype: str  # the widest type among them


def write_tensors(
    path: Path,
    family: Family,
    config: DecoderConfig,
    source: TensorFiles,
    max_shard_bytes: int,
    moved: Callable[[int, int], None],
) -> Written:
    """Write all tensors of a decoder under the family's names, one in memory at a time; `moved` is told (done, total).

    Files hold at most `max_shard_bytes` of tensors each, or one tensor that is larger. Raises StageError if a tensor
    is left over on either side.
    """
    entries = _entries(family, config, source.headers)
    shards = _shards(entries, max_shard_bytes)
    done = 0
    with ExitStack() as stack:
        writers: dict[str, TensorWriter] = {}
        for name, members in shards.items():
            writer = stack.enter_context(TensorWriter(path / name, members))
            writers |= dict.fromkeys(members, writer)

        def write(name: str, tensor: Tensor) -> None:
            nonlocal done
            writers[name].write(name, tensor)
            done += 1
            moved(done, len(entries))

        export_tensors(family, config, source, write)
    nbytes = sum(entry.nbytes for entry in entries.values())
    if len(shards) > 1:
        placed = {name: file for file, members in shards.items() for name in members}
        index = {"metadata": {"total_size": nbytes}, "weight_map": placed}
        (path / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    widest = max((entry.dtype for entry in entries.values()), key=lambda dtype: dtype.itemsize)
    return Written(len(entries), len(shards), nbytes, str(widest).removeprefix("torch."))


def write_tokenizer(path: Path, tokenizer_json: Path, tokenizer: Tokenizer, config: DecoderConfig) -> None:
    """A copy of the tokenizer's file, and beside it what `AutoTokenizer` needs to know. It gives the ids that it gives
    here: special tokens written out in a text are letters."""
    shutil.copyfile(tokenizer_json, path / TOKENIZER)
    ids = {"bos_token": config.bos_token_id, "eos_token": config.eos_token_id, "pad_token": config.pad_token_id}
    special = {name: token for name, index in ids.items() if (token := tokenizer.id_to_token(index)) is not None}
    unknown = json.loads(tokenizer.to_str())["model"].get("unk_token") or "<unk>"
    if tokenizer.token_to_id(unknown) is not None:
        special["unk_token"] = unknown
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_length,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    for name, content in (("tokenizer_config.json", settings | special), ("special_tokens_map.json", special)):
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        (path / name).write_text(text + "\n", encoding="utf-8")


def _entries(family: Family, config: DecoderConfig, source: Mapping[str, TensorHeader]) -> dict[str, TensorHeader]:
    """What the files will hold: the family's names, each with the type of the decoder's tensor that it is of."""
    types = {theirs: source[ours].dtype for ours, names in family.names(config).items() for theirs in names}
    return {name: TensorHeader(shape, types[name]) for name, shape in exported_shapes(family, config).items()}


def _shards(entries: Mapping[str, TensorHeader], limit_bytes: int) -> dict[str, dict[str, TensorHeader]]:
    """File name -> what it holds, filled in order."""
    shards: list[dict[str, TensorHeader]] = [{}]
    size = 0
    for name, entry in entries.items():
        if shards[-1] and size + entry.nbytes > limit_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = entry
        size += entry.nbytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": one for number, one in enumerate(shards, 1)}
