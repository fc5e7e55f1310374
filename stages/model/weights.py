"""A decoder's tensors in a safetensors file, held against its config when written and when read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from stages.base import ArtifactError
from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder
from stages.model.tensor_files import Entry, TensorFiles, TensorWriter

SHOWN = 5  # names in an error message


def expected_tensors(config: DecoderConfig) -> dict[str, torch.Tensor]:
    """Every tensor of a model by name, without its values (on the meta device: nothing is allocated)."""
    with torch.device("meta"):
        return dict(Decoder(config).state_dict())


def write_weights(path: Path, state: Mapping[str, torch.Tensor], config: DecoderConfig) -> None:
    """Write a state dict: the same bytes for the same tensors. Raises ArtifactError if it is not that of a model of
    this config."""
    _refuse_misfit(path, state, config)
    entries = {name: Entry(tuple(state[name].shape), state[name].dtype) for name in expected_tensors(config)}
    with TensorWriter(path, entries) as file:
        for name in entries:
            file.write(name, state[name])


def open_weights(path: Path, config: DecoderConfig) -> TensorFiles:
    """The tensors of a file, each read when it is asked for. Raises ArtifactError, before any is read, if the file is
    damaged or does not fit the config."""
    files = TensorFiles([path])
    _refuse_misfit(path, files.entries, config)
    return files


def read_weights(path: Path, config: DecoderConfig) -> dict[str, torch.Tensor]:
    """Read a state dict. Raises ArtifactError if the file is damaged or does not fit the config."""
    with open_weights(path, config) as tensors:
        return dict(tensors)


def converted(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The state with its floating point tensors in `dtype`, apart from the scales of quantized ones."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() and not name.endswith("scale") else tensor
        for name, tensor in state.items()
    }


def refuse_not_finite(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Raise ArtifactError if a tensor holds an infinity or NaN."""
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise ArtifactError(f"{path} holds values that are not finite: {_names(bad)}")


def _refuse_misfit(path: Path, state: Mapping[str, torch.Tensor | Entry], config: DecoderConfig) -> None:
    expected = expected_tensors(config)
    missing, extra = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if missing or extra:
        said = [f"{what}: {_names(names)}" for what, names in (("missing", missing), ("unknown", extra)) if names]
        raise ArtifactError(f"{path} does not fit its config; " + "; ".join(said))
    for name, tensor in state.items():
        wanted = expected[name]
        if tuple(tensor.shape) != tuple(wanted.shape):
            raise ArtifactError(f"{path}: {name} has shape {list(tensor.shape)}, not {list(wanted.shape)}")
        if tensor.dtype.is_floating_point != wanted.dtype.is_floating_point:
            raise ArtifactError(f"{path}: {name} is {tensor.dtype}, not {wanted.dtype}")


def _names(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
