"""Converts tensors from the names of a family to those of the decoder and back.

Tensors are moved unchanged, except that queries, keys and values are fused or split. Values are never changed: a tensor
keeps its type and its bits, and a converted model converts back to the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stages.base import StageError
from stages.huggingface.families import HEAD, Family
from stages.model import rotary
from stages.model.config import DecoderConfig
from stages.model.parameters import Shape, parameter_shapes
from stages.model.safetensors_files import TensorHeader
from stages.model.tensor_transfer import TensorTransfer

Write = Callable[[str, Tensor], None]
DERIVED_TOLERANCE = 1e-2  # relative; old files hold these buffers in half precision


def fuse(config: DecoderConfig, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The fused matrix [rows, hidden] or bias [rows] of the decoder. `Attention` documents the order of the rows."""
    groups, of_group = config.grouped_heads, config.heads // config.grouped_heads
    parts = [
        part.view(groups, heads, config.head_size, *part.shape[1:])
        for part, heads in ((query, of_group), (key, 1), (value, 1))
    ]
    return torch.cat(parts, 1).flatten(0, 2)


def unfuse(config: DecoderConfig, fused: Tensor) -> tuple[Tensor, ...]:
    """The inverse of `fuse`."""
    groups, of_group = config.grouped_heads, config.heads // config.grouped_heads
    rows = fused.view(groups, of_group + 2, config.head_size, *fused.shape[1:])
    return tuple(part.flatten(0, 2) for part in torch.split(rows, [of_group, 1, 1], 1))


def names_in(family: Family, config: DecoderConfig, found: Mapping[str, TensorHeader]) -> dict[str, tuple[str, ...]]:
    """For every tensor of the decoder, its names in the source. The prefix `base` is left out if the source was saved
    without a head."""
    names = family.names(config)
    if any(name.startswith(family.base) for name in found):
        return names
    return {ours: tuple(one.removeprefix(family.base) for one in theirs) for ours, theirs in names.items()}


def imported_headers(
    family: Family, config: DecoderConfig, found: Mapping[str, TensorHeader]
) -> dict[str, TensorHeader]:
    """The headers of the decoder's file, from those of the source, so that every shape is checked before any tensor is
    read.

    Raises StageError if a tensor is missing or has another shape or type than the config says.
    """
    shapes, headers = parameter_shapes(config), {}
    for ours, theirs in names_in(family, config, found).items():
        missing = [name for name in theirs if name not in found]
        if missing:
            raise StageError(f"the source has no {', '.join(missing)}, which its config requires")
        parts = [found[name] for name in theirs]
        for name, part, wanted in zip(theirs, parts, _parts(config, shapes[ours], len(theirs)), strict=True):
            if part.shape != wanted:
                raise StageError(f"{name} has shape {list(part.shape)}, but the config requires {list(wanted)}")
            if not part.dtype.is_floating_point or part.dtype != parts[0].dtype:
                raise StageError(f"{name} is {part.dtype}; expected one floating-point type for {', '.join(theirs)}")
        headers[ours] = TensorHeader(shapes[ours], parts[0].dtype)
    return headers


def import_tensors(
    family: Family, config: DecoderConfig, source: Mapping[str, Tensor], found: Mapping[str, TensorHeader], write: Write
) -> None:
    """Pass every tensor of `source`, whose headers are `found`, to `write` under its name in the decoder.

    Raises StageError if a tensor of either form is left over.
    """
    transfer = TensorTransfer(source, parameter_shapes(config), write)
    names = names_in(family, config, found)
    for ours, theirs in names.items():
        parts = [transfer.take(name) for name in theirs]
        transfer.put(ours, parts[0] if len(parts) == 1 else fuse(config, *parts))
    _take_copies(family, config, transfer, source, names)
    transfer.finish()


def export_tensors(family: Family, config: DecoderConfig, source: Mapping[str, Tensor], write: Write) -> None:
    """Pass every tensor of a decoder to `write` under its names in the family.

    Raises StageError if a tensor of either form is left over.
    """
    names = family.names(config)
    transfer = TensorTransfer(source, exported_shapes(family, config), write)
    for ours, theirs in names.items():
        value = transfer.take(ours)
        parts = (value,) if len(theirs) == 1 else unfuse(config, value)
        for name, part in zip(theirs, parts, strict=True):
            transfer.put(name, part)
    transfer.finish()


def exported_shapes(family: Family, config: DecoderConfig) -> dict[str, Shape]:
    """The shape of every tensor of a model in the family by name, in the order of the decoder."""
    names = family.names(config)
    shapes: dict[str, Shape] = {}
    for ours, shape in parameter_shapes(config).items():
        shapes |= dict(zip(names[ours], _parts(config, shape, len(names[ours])), strict=True))
    return shapes


def _parts(config: DecoderConfig, shape: Shape, count: int) -> list[Shape]:
    """The shapes of the `count` tensors that hold a decoder's tensor: itself, or its queries, keys and values."""
    if count == 1:
        return [shape]
    shared = config.grouped_heads * config.head_size
    return [(rows, *shape[1:]) for rows in (config.heads * config.head_size, shared, shared)]


def _take_copies(
    family: Family,
    config: DecoderConfig,
    transfer: TensorTransfer,
    source: Mapping[str, Tensor],
    names: Mapping[str, tuple[str, ...]],
) -> None:
    """Take the copies that a source may hold in addition to its parameters: a tied head, and buffers that follow from
    the config.

    Raises StageError if one of them differs from its original.
    """
    head = f"{HEAD}.weight"
    if config.tied_head and head in source:
        embedding = names["word_embeddings.weight"][0]
        if not torch.equal(transfer.take(head), source[embedding]):
            raise StageError(f"{head} differs from {embedding}, but the config says that the two are tied")
    prefix = family.base if any(name.startswith(family.base) for name in source) else ""
    for buffer in family.derived:
        for layer in range(config.layers):
            name = prefix + buffer.format(layer)
            if name not in source:
                continue
            found, wanted = transfer.take(name).float(), rotary.frequencies(config)
            if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=DERIVED_TOLERANCE):
                raise StageError(
                    f"{name} differs from the frequencies that rope_theta {config.rotary_base} of the config gives"
                )
