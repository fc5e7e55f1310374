"""Brings in a model from outside: a directory in Hugging Face's form becomes a Checkpoint, every bit of it.

BLOOM, OPT and Llama in safetensors are read, one tensor at a time; pickled weights are refused. Every tensor of the
source is used once and every tensor of the model is written once, or the step fails and names what was lost. Weights
keep the type that they come in (float32, bfloat16, float16); whatever computes with them widens them exactly.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from pydantic import field_validator

from stages.artifacts.checkpoint import WEIGHTS, Checkpoint, CheckpointForecast
from stages.artifacts.tokenizer import Tokenizer
from stages.base import Context, External, Stage, StageError, Stopped
from stages.huggingface import model_directory
from stages.huggingface.families import read_config
from stages.huggingface.special_tokens import read_token_facts, token_files
from stages.model.parameters import parameter_count

_REMEDY = "a model and a tokenizer of `transformers` write all that is needed with save_pretrained(DIRECTORY)"


class HuggingFaceDirectory(External):
    """A model's directory, on a file system that every node sees. Identified by the content that is read of it."""

    path: str  # relative to where the command runs

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        return os.path.abspath(os.path.expanduser(path))  # workers run elsewhere than the command did

    @property
    def directory(self) -> Path:
        return Path(self.path)

    def files(self) -> list[Path]:
        """What is read. Raises StageError if there is no model, or its weights are pickled."""
        if not self.directory.is_dir():
            raise StageError(f"source.path: there is no directory {self.path}; give that of a model to import")
        index = self.directory / model_directory.INDEX
        return [
            self.directory / model_directory.CONFIG,
            *([index] if index.is_file() else []),
            *model_directory.weight_files(self.directory),
            self.directory / model_directory.TOKENIZER,
            *token_files(self.directory),
        ]

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        whole = hashlib.sha256()
        for file in self.files():
            if not file.is_file():
                raise StageError(f"source.path: {self.path} has no {file.name}; {_REMEDY}")
            whole.update(f"{file.name} {digest_file(file)}\n".encode())
        return whole.hexdigest()


class ImportModel(Stage):
    """A model in Hugging Face's form as a checkpoint. Reads a directory, leaves Checkpoint."""

    headline: ClassVar[str | None] = "parameters"

    source: HuggingFaceDirectory

    def forecast(self) -> CheckpointForecast | None:
        source = self.source.directory / model_directory.CONFIG
        try:
            _, config = read_config(model_directory.read_json(source, model_directory.CONFIG_LIMIT_BYTES), str(source))
        except StageError:  # `run` reports it; or the files of the tokenizer complete it
            return None
        return CheckpointForecast(config=config)

    def run(self, ctx: Context) -> Checkpoint:
        from stages.huggingface.tensor_conversion import import_tensors, imported_entries
        from stages.model.safetensors_files import TensorWriter

        self.source.files()
        source = self.source.directory
        values = model_directory.read_json(source / model_directory.CONFIG, model_directory.CONFIG_LIMIT_BYTES)
        tokens = read_token_facts(source, Tokenizer(source).load())
        for disagreement in tokens.disagreements(values):
            ctx.note(disagreement)
        family, config = read_config(tokens.completed(values), str(source / model_directory.CONFIG))
        with model_directory.open_tensors(source) as tensors:
            entries = imported_entries(family, config, tensors.headers)
            writer, done = TensorWriter(ctx.out / WEIGHTS, entries), 0

            def write(name: str, tensor) -> None:  # type: ignore[no-untyped-def]
                nonlocal done
                if ctx.stopping():
                    raise Stopped
                writer.write(name, tensor)
                done += 1
                ctx.progress(done, len(entries), "tensors")

            with writer:
                import_tensors(family, config, tensors, tensors.headers, write)
            types = sorted({str(entry.dtype).removeprefix("torch.") for entry in entries.values()})
            facts = {"imported_from": family.name, "source_tensors": len(tensors), "stored_as": ", ".join(types)}
        ctx.metrics({"parameters": parameter_count(config), "tensors": len(entries)})
        ctx.note(f"{family.name}: {facts['source_tensors']} tensors read, {len(entries)} written, {facts['stored_as']}")
        return Checkpoint.complete(ctx.out, config, source / model_directory.TOKENIZER, facts, tokens.chat_template)
