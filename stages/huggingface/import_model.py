"""Imports a model: converts a directory in the Hugging Face format to a Checkpoint, exactly.

BLOOM, OPT and Llama are read from safetensors files, one tensor at a time. Pickled weights are refused. Every tensor of
the source is used once and every tensor of the model is written once; otherwise the step fails and names the tensors
that were lost. Weights keep their type (float32, bfloat16, float16). Stages that compute with them convert them to
float32, which is exact.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from pydantic import field_validator

from stages.artifacts.checkpoint import WEIGHTS, Checkpoint, CheckpointForecast
from stages.base import Context, External, Stage, StageError, Stopped
from stages.huggingface import model_directory
from stages.huggingface.description import read_description
from stages.huggingface.families import read_config
from stages.huggingface.special_tokens import token_files
from stages.huggingface.tokenizer_trial import try_tokenizer
from stages.model.parameters import parameter_count

_REMEDY = (
    "in `transformers`, save_pretrained(DIRECTORY) of the model and of the tokenizer writes all files that are needed"
)


class HuggingFaceDirectory(External):
    """The directory of a model, on a file system that every node can read. It is identified by the content of the files
    that are read."""

    path: str  # absolute, or relative to the working directory of the command

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        return os.path.abspath(os.path.expanduser(path))  # workers have another working directory

    @property
    def directory(self) -> Path:
        return Path(self.path)

    def files(self) -> list[Path]:
        """The files that are read. Raises StageError if there is no model or its weights are pickled."""
        if not self.directory.is_dir():
            raise StageError(f"source.path: there is no directory {self.path}; expected the directory of a model")
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
    """Imports a model from a directory in the Hugging Face format."""

    headline: ClassVar[str | None] = "parameters"
    version: ClassVar[str] = "2"  # 2: several end tokens, how a document begins; no token stands in for a missing one
    spawns: ClassVar[bool] = False

    source: HuggingFaceDirectory

    def forecast(self) -> CheckpointForecast | None:
        source = self.source.directory / model_directory.CONFIG
        try:
            _, config = read_config(model_directory.read_json(source, model_directory.CONFIG_LIMIT_BYTES), str(source))
        except StageError:  # `obstacle` reports the error, unless the files of the tokenizer complete the config
            return None
        special = (*config.end_tokens, config.bos_token_id, config.pad_token_id)
        if any(index is not None and index >= config.vocab_size for index in special):
            return None  # likewise
        return CheckpointForecast(config=config, tokenizer_of="")

    def obstacle(self) -> str | None:
        if self.forecast() is not None:
            return None
        try:
            read_description(self.source.directory)
        except StageError as error:
            return str(error)
        return None

    def run(self, ctx: Context) -> Checkpoint:
        from stages.huggingface.tensor_conversion import import_tensors, imported_headers
        from stages.model.safetensors_files import TensorWriter

        self.source.files()
        source = self.source.directory
        try_tokenizer(source / model_directory.TOKENIZER)
        found = read_description(source)
        for note in found.notes:
            ctx.note(note)
        family, config = found.family, found.config
        with model_directory.open_tensors(source) as tensors:
            headers = imported_headers(family, config, tensors.headers)
            writer, done = TensorWriter(ctx.out / WEIGHTS, headers), 0

            def write(name: str, tensor) -> None:  # type: ignore[no-untyped-def]
                nonlocal done
                if ctx.stopping():
                    raise Stopped
                writer.write(name, tensor)
                done += 1
                ctx.progress(done, len(headers), "tensors")

            with writer:
                import_tensors(family, config, tensors, tensors.headers, write)
            types = sorted({str(header.dtype).removeprefix("torch.") for header in headers.values()})
            facts = {"imported_from": family.name, "source_tensors": len(tensors), "stored_as": ", ".join(types)}
        ctx.metrics({"parameters": parameter_count(config), "tensors": len(headers)})
        ctx.note(f"{family.name}: read {facts['source_tensors']} tensors, wrote {len(headers)} as {facts['stored_as']}")
        tokenizer = source / model_directory.TOKENIZER
        if found.tokenizer_changed:
            tokenizer = ctx.scratch / model_directory.TOKENIZER
            found.tokenizer.save(str(tokenizer))
        return Checkpoint.complete(ctx.out, config, tokenizer, facts, found.chat_template)
