"""torch.compile for the blocks of a model: one graph for each block and shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stages.base import StageError


def compile_blocks(blocks: Sequence[nn.Module]) -> None:
    """Compile each block's forward pass, inside the hooks that gather and free its parameters.

    Shapes are never made dynamic: the graph that runs then depends on the batch alone, not on what ran before, and
    training stays bitwise the same after a restart. Raises StageError on a CPU without a C++ compiler.
    """
    if not torch.cuda.is_available():
        _require_compiler()
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False)


def _require_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise StageError(
            "compiled: true needs a C++ compiler on the machine of every rank, and none was found: install g++ (or "
            "set CXX to a compiler), or leave compiled out"
        ) from error
