"""A model in the Hugging Face format, which `transformers` loads and the Hub accepts.

config.json, generation_config.json                    the architecture and the ids of special tokens
model.safetensors, or model-*-of-*.safetensors and model.safetensors.index.json
tokenizer.json, tokenizer_config.json, special_tokens_map.json
README.md                                              the model card
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stages.base import Artifact, ArtifactError, StageError
from stages.huggingface import model_directory
from stages.huggingface.description import read_description
from stages.huggingface.families import Family, read_config
from stages.model.config import DecoderConfig
from stages.model.parameters import parameter_count

CARD = "README.md"


@dataclass(frozen=True)
class HuggingFaceModel(Artifact):
    """A directory for `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`."""

    is_model: ClassVar[bool] = True

    def read(self) -> tuple[Family, DecoderConfig]:
        """The family and the config of the decoder. Raises StageError if config.json is not that of a known family."""
        path = self.path / model_directory.CONFIG
        return read_config(model_directory.read_json(path, model_directory.CONFIG_LIMIT_BYTES), str(path))

    def check(self) -> None:
        """Check everything that loading depends on: the config, the names and shapes of all tensors (by their headers),
        and the special tokens."""
        from stages.huggingface.tensor_conversion import exported_shapes, imported_headers

        try:
            found = read_description(self.path)
            family, config = found.family, found.config
            with model_directory.open_tensors(self.path) as tensors:
                imported_headers(family, config, tensors.headers)
                extra = sorted(tensors.headers.keys() - exported_shapes(family, config).keys())
        except StageError as error:
            raise ArtifactError(f"{self.path}: {error}") from None
        if extra:
            raise ArtifactError(f"{self.path} holds tensors that its model does not have: {', '.join(extra[:5])}")
        if not (self.path / CARD).is_file():
            raise ArtifactError(f"{self.path} has no {CARD}")

    def describe(self) -> Mapping[str, object]:
        family, config = self.read()
        files: list[Path] = model_directory.weight_files(self.path)
        return {
            "family": family.name,
            "parameters": parameter_count(config),
            "weight files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "loaded by": "AutoModelForCausalLM.from_pretrained",  # its path is in the record: this one is temporary
        }
