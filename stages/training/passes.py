"""Hooks that follow each forward and backward pass through the blocks of a model.

They gather parameters ahead of their use and free them after it (stage 3), and report each group whose gradients are
complete, so that its exchange can start while the backward pass continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stages.training.gathering import ParameterGatherer
from stages.training.layout import Group


class PassHooks:
    """Registers hooks on `blocks`. `groups`: those that are trained. `close(first)` is called when the backward pass
    has left the ones from number `first` on. `gatherer` is None below stage 3."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        groups: Sequence[Group],
        gatherer: ParameterGatherer | None,
        close: Callable[[int], None],
    ) -> None:
        self._gatherer, self._close = gatherer, close
        self._last_position = len(blocks) + 1
        # For each position, how many groups, from the first, are used there or before.
        self._used = [
            sum(min(group.positions) <= position for group in groups) for position in range(self._last_position)
        ]
        self._reached = self._last_position  # the position that the backward pass has reached
        self._in_blocks = False  # whether the forward pass has reached the blocks
        for position, block in enumerate(blocks, start=1):
            self._register(position, block)

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """One forward pass, and optionally its backward pass, runs inside."""
        self._in_blocks, self._reached = False, self._last_position
        if self._gatherer:
            self._gatherer.enter(0, 1)
        yield
        if self._gatherer:
            self._gatherer.leave()

    def _register(self, position: int, block: nn.Module) -> None:
        def before(module: nn.Module, inputs: tuple[object, ...]) -> None:
            if position == 1:
                self._enter_blocks()
            if self._gatherer:
                self._gatherer.enter(position, 1)
            if position == 1:
                watch_gradients(inputs, 0)

        def after(module: nn.Module, inputs: object, output: object) -> None:
            if self._gatherer and position + 1 == self._last_position:
                self._gatherer.enter(self._last_position, -1 if torch.is_grad_enabled() else 0)
            watch_gradients(output if isinstance(output, tuple) else (output,), position)

        def watch_gradients(tensors: tuple[object, ...], reached: int) -> None:
            for tensor in tensors:
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(lambda gradient: self._reach_backward(reached))

        block.register_forward_pre_hook(before)
        block.register_forward_hook(after)

    def _enter_blocks(self) -> None:
        """Groups are freed and their gradients are taken when one pass has left them; a second pass would miss them."""
        if self._in_blocks:
            raise RuntimeError(
                "the task's loss runs the model more than once for a micro-batch: compute everything that the loss "
                "needs in one pass"
            )
        self._in_blocks = True

    def _reach_backward(self, position: int) -> None:
        """The backward pass has reached `position`, and has left everything after it."""
        if position >= self._reached:
            return
        self._reached = position
        self._close(self._used[position])
        if self._gatherer:
            self._gatherer.enter(position, -1)
