"""Activation checkpointing: blocks that the backward pass computes again, and where their inputs are kept until then.

    full        only a block's input is kept (Chen et al., arXiv 1604.06174)
    selective   the results of its matrix products with weights are kept as well; attention, norms and elementwise
                operations are computed again, which saves most of the memory for little of the time (cf. Korthikanti
                et al., arXiv 2205.05198)

All modes give the same bits. Inputs can be moved to (pinned) host memory or to a file; on a CPU they are in host memory
already.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from stages.base import StageError
from stages.training.offload import unnamed_file
from stages.training.recipe import Execution

PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


def recompute(blocks: Sequence[nn.Module], execution: Execution, folder: Path) -> None:
    """Have the backward pass recompute the blocks that `execution` selects. Hooks on the blocks are outside of this:
    they run once per pass. `folder`: for inputs that are offloaded to files."""
    if execution.recompute == "none":
        return
    contexts = _keep_products if execution.recompute == "selective" else noop_context_fn
    caches = {"none": None, "host": _HostCache, "file": functools.partial(_FileCache, folder)}
    cache = caches[execution.offload_activations]
    for block in blocks[:: execution.recompute_every]:
        block.forward = _recomputed(block.forward, contexts, cache() if cache else None)


def _recomputed(forward: Callable[..., Any], contexts: Callable[..., Any], cache: Any) -> Callable[..., Any]:
    def recomputed(*arguments: Any, **named: Any) -> Any:
        run = functools.partial(checkpoint, forward, *arguments, use_reentrant=False, preserve_rng_state=False,
                                context_fn=contexts, **named)  # fmt: skip
        if cache is None or not torch.is_grad_enabled():
            return run()
        with saved_tensors_hooks(cache.put, cache.get):  # sees only the inputs of the block
            return run()

    return recomputed


def _keep_products() -> Any:
    def policy(context: Any, operation: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operation in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


class _HostCache:
    """Keeps inputs in pinned host memory."""

    def put(self, tensor: Tensor) -> tuple[Tensor, torch.device]:
        if tensor.device.type == "cpu" or not tensor.requires_grad:
            return tensor, tensor.device
        held = torch.empty_like(tensor, device="cpu", pin_memory=True)
        return held.copy_(tensor), tensor.device

    def get(self, held: tuple[Tensor, torch.device]) -> Tensor:
        tensor, device = held
        return tensor.to(device)


@dataclass(frozen=True)
class _FileEntry:
    file: IO[bytes]
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


class _FileCache:
    """Keeps inputs in files, which are reused from pass to pass."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: list[IO[bytes]] = []

    def put(self, tensor: Tensor) -> Tensor | _FileEntry:
        if not tensor.requires_grad:  # masks and positions, which all blocks share
            return tensor
        content = memoryview(_bytes(tensor.detach().contiguous().cpu()))
        file = self._free.pop() if self._free else unnamed_file(self._folder, len(content))
        written = 0
        while written < len(content):
            written += os.pwrite(file.fileno(), content[written:], written)
        return _FileEntry(file, tensor.shape, tensor.dtype, tensor.device)

    def get(self, held: Tensor | _FileEntry) -> Tensor:
        if isinstance(held, Tensor):
            return held
        tensor = torch.empty(held.shape, dtype=held.dtype)
        content = memoryview(_bytes(tensor))
        read = 0
        while read < len(content):
            count = os.preadv(held.file.fileno(), [content[read:]], read)
            if not count:
                raise StageError(f"another process truncated a file of offloaded activations in {self._folder}")
            read += count
        self._free.append(held.file)
        return tensor.to(held.device)


def _bytes(tensor: Tensor) -> Any:
    return tensor.view(-1).view(torch.uint8).numpy()
