"""The weights of a decoder in a safetensors file, checked against its config when they are written and read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from stages.base import ArtifactError
from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder
from stages.model.quantization_schemes import stored_tensors
from stages.model.safetensors_files import TensorFiles, TensorHeader, TensorWriter

NAMES_SHOWN = 5  # in an error message


def expected_tensors(config: DecoderConfig) -> dict[str, torch.Tensor]:
    """Every tensor of a model by name, without values (on the meta device, where nothing is allocated)."""
    with torch.device("meta"):
        return dict(Decoder(config).state_dict())


def write_weights(path: Path, state: Mapping[str, torch.Tensor], config: DecoderConfig) -> None:
    """Write a state dict; the same tensors give the same bytes.

    Raises ArtifactError if the tensors are not those of a model of this config.
    """
    _refuse_misfit(path, state, config)
    headers = {name: TensorHeader(tuple(state[name].shape), state[name].dtype) for name in expected_tensors(config)}
    with TensorWriter(path, headers) as file:
        for name in headers:
            file.write(name, state[name])


def open_weights(path: Path, config: DecoderConfig) -> TensorFiles:
    """The tensors of a file, each of which is read when it is accessed.

    Raises ArtifactError, before any tensor is read, if the file is damaged or does not fit the config.
    """
    files = TensorFiles([path])
    _refuse_misfit(path, files.headers, config)
    return files


def read_weights(path: Path, config: DecoderConfig) -> dict[str, torch.Tensor]:
    """Read a state dict. Raises ArtifactError if the file is damaged or does not fit the config."""
    with open_weights(path, config) as tensors:
        return dict(tensors)


def converted(state: Mapping[str, torch.Tensor], config: DecoderConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The state dict of a model with its floating-point parameters in `dtype`. Quantized ones stay as they are."""
    stored = stored_tensors(config)
    return {name: tensor if stored[name].quantized else tensor.to(dtype) for name, tensor in state.items()}


def _refuse_misfit(path: Path, state: Mapping[str, torch.Tensor | TensorHeader], config: DecoderConfig) -> None:
    expected = expected_tensors(config)
    missing, extra = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if missing or extra:
        parts = [f"{what}: {_names(names)}" for what, names in (("missing", missing), ("unknown", extra)) if names]
        raise ArtifactError(f"{path} does not fit its config; " + "; ".join(parts))
    for name, tensor in state.items():
        wanted = expected[name]
        if tuple(tensor.shape) != tuple(wanted.shape):
            raise ArtifactError(f"{path}: {name} has shape {list(tensor.shape)}, expected {list(wanted.shape)}")
        if tensor.dtype.is_floating_point != wanted.dtype.is_floating_point:
            raise ArtifactError(f"{path}: {name} is {tensor.dtype}, expected {wanted.dtype}")


def _names(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
