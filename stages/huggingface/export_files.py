"""Writes the tensors and the tokenizer of a model in the layout that Hugging Face's libraries load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from stages.artifacts.document_start import document_start, starting_with, tokenizer_start
from stages.huggingface.families import Family
from stages.huggingface.model_directory import INDEX, TOKENIZER, WEIGHTS
from stages.huggingface.tensor_conversion import export_tensors, exported_shapes
from stages.model.config import DecoderConfig
from stages.model.safetensors_files import TensorFiles, TensorHeader, TensorWriter


@dataclass(frozen=True)
class Written:
    """The tensors that were written."""

    tensors: int
    files: int
    nbytes: int  # of tensors
    dtype: str  # the type with the most bytes among them


def write_tensors(
    path: Path,
    family: Family,
    config: DecoderConfig,
    source: TensorFiles,
    max_shard_bytes: int,
    moved: Callable[[int, int], None],
) -> Written:
    """Write all tensors of a decoder under the names of the family, with one tensor in memory at a time.

    max_shard_bytes: limit on the tensors of one file. A larger tensor gets its own file.
    moved: called with (done, total) after each tensor.

    Raises StageError if a tensor of either form is left over.
    """
    headers = _headers(family, config, source.headers)
    shards = _shards(headers, max_shard_bytes)
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
            moved(done, len(headers))

        export_tensors(family, config, source, write)
    nbytes = sum(header.nbytes for header in headers.values())
    if len(shards) > 1:
        placed = {name: file for file, members in shards.items() for name in members}
        index = {"metadata": {"total_size": nbytes}, "weight_map": placed}
        (path / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    widest = max((header.dtype for header in headers.values()), key=lambda dtype: dtype.itemsize)
    return Written(len(headers), len(shards), nbytes, str(widest).removeprefix("torch."))


def write_tokenizer(path: Path, tokenizer_json: Path, tokenizer: Tokenizer, config: DecoderConfig) -> None:
    """Copy the file of the tokenizer and write the settings that `AutoTokenizer` needs. It then returns the same ids as
    in bloomline: a text begins as the model's documents do, and special tokens that are written out in it are encoded
    as letters."""
    start = document_start(config, tokenizer)
    if start == tokenizer_start(tokenizer):
        shutil.copyfile(tokenizer_json, path / TOKENIZER)
    else:
        starting_with(tokenizer, start).save(str(path / TOKENIZER))
    ids = {"bos_token": config.bos_token_id, "eos_token": config.eos_token_id, "pad_token": config.pad_token_id}
    special = {
        name: token
        for name, index in ids.items()
        if index is not None and (token := tokenizer.id_to_token(index)) is not None
    }
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


def _headers(family: Family, config: DecoderConfig, source: Mapping[str, TensorHeader]) -> dict[str, TensorHeader]:
    """The headers of the files: names of the family, each with the type of the decoder's tensor that it comes from."""
    types = {theirs: source[ours].dtype for ours, names in family.names(config).items() for theirs in names}
    return {name: TensorHeader(shape, types[name]) for name, shape in exported_shapes(family, config).items()}


def _shards(headers: Mapping[str, TensorHeader], limit_bytes: int) -> dict[str, dict[str, TensorHeader]]:
    """The tensors of each file by file name. Files are filled in order."""
    shards: list[dict[str, TensorHeader]] = [{}]
    size = 0
    for name, header in headers.items():
        if shards[-1] and size + header.nbytes > limit_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = header
        size += header.nbytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": one for number, one in enumerate(shards, 1)}
