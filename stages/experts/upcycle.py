"""Converts a dense decoder to a mixture of experts that computes the same (sparse upcycling, arXiv 2212.05055).

Every expert starts as a copy of the feed-forward network of its layer, so the mixture of the outputs is the dense
output for any choice of experts. Two refinements keep this property:

- residual (PR-MoE, arXiv 2201.05596): the dense network is kept next to the experts.
- granularity G (arXiv 2410.07524): each copy is cut into G experts with 1/G of the neurons each. The gate rows of these
  experts are equal at first, so that the top choices are all parts of one copy. A mixture averages, but the parts of a
  network must be summed, so the second matrix is multiplied by G. Its bias is not: every part has the whole bias, and
  the weights of the mixture sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from stages.model.config import DecoderConfig
from stages.model.initialise import initial_values
from stages.model.parameters import parameter_shapes
from stages.model.tensor_transfer import TensorTransfer

FIRST, SECOND = ("dense_h_to_4h", "dense_gate"), "dense_4h_to_h"


def upcycle(state: Mapping[str, Tensor], dense: DecoderConfig, target: DecoderConfig, seed: int) -> dict[str, Tensor]:
    """The state dict of a `target` model that computes the same function as the `dense` model with this state dict.

    seed: of the random gates.

    Raises StageError if a tensor of either model is left over.
    """
    written: dict[str, Tensor] = {}
    transfer = TensorTransfer(state, parameter_shapes(target), written.__setitem__)
    for name in parameter_shapes(dense):
        layer, part = _feed_forward_part(name)
        value = transfer.take(name)
        if layer is None or not target.experts_of(layer):
            transfer.put(name, value)
            continue
        prefix = f"blocks.{layer}.mlp"
        experts, pieces = target.experts_of(layer), dense.inner_size // target.expert_inner_size
        transfer.put(
            f"{prefix}.experts.{part}", _cut(part, value, pieces).repeat(experts // pieces, *[1] * value.dim())
        )
        if target.experts and target.experts.residual:
            transfer.put(f"{prefix}.residual.{part}", value)
    for layer in range(target.layers):
        if target.experts_of(layer):
            _put_gates(transfer, target, layer, dense.inner_size // target.expert_inner_size, seed)
    transfer.finish()
    return written


def _feed_forward_part(name: str) -> tuple[int | None, str]:
    """The layer and the name within it ("dense_h_to_4h.weight") of a feed-forward tensor; (None, "") for any other."""
    fields = name.split(".", 3)
    return (int(fields[1]), fields[3]) if fields[0] == "blocks" and fields[2] == "mlp" else (None, "")


def _cut(part: str, value: Tensor, pieces: int) -> Tensor:
    """A tensor of one network, cut into the tensors of `pieces` networks: [pieces, ...]."""
    if part.startswith(FIRST):
        return value.view(pieces, -1, *value.shape[1:])
    if part == f"{SECOND}.weight":
        return value.view(value.shape[0], pieces, -1).transpose(0, 1) * pieces
    return value.expand(pieces, *value.shape)


def _put_gates(transfer: TensorTransfer, target: DecoderConfig, layer: int, pieces: int, seed: int) -> None:
    prefix = f"blocks.{layer}.mlp"
    copies = target.experts_of(layer) // pieces
    gate = initial_values(target, seed, f"{prefix}.gate.weight", 0, copies * target.hidden_size)
    gate = gate.view(copies, target.hidden_size)
    transfer.put(f"{prefix}.gate.weight", gate.repeat_interleave(pieces, 0))
    if target.experts and target.experts.residual:
        for name, shape in (("weight", (2, target.hidden_size)), ("bias", (2,))):
            name = f"{prefix}.coefficient.{name}"
            transfer.put(name, initial_values(target, seed, name, 0, math.prod(shape)).view(shape))
