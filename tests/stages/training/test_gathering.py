"""Stage 3 gathers the next group while it computes with the current one."""

from __future__ import annotations

from typing import Any

import torch

from stages.parallel.collectives import Collectives
from stages.training.recipe import Execution
from stages.training.zero import ShardedModel
from tests.stages.training.toy import RECIPE, build


def test_the_next_group_is_gathered_ahead_in_both_passes() -> None:
    task = build(RECIPE, blocks=3)
    model = ShardedModel(task, RECIPE, Execution(zero_stage=3), Collectives())
    model.initialise(task.initial)
    seen: dict[str, set[str]] = {}

    def see(moment: str) -> None:
        whole = {one.layout.name for one in model.groups if one.full.untyped_storage().nbytes()}
        seen[moment] = {name for name in whole if name.startswith("block")}

    def watch(number: int, layer: torch.nn.Module) -> None:
        def after(module: Any, inputs: Any, output: torch.Tensor) -> None:
            see(f"forward {number}")
            output.register_hook(lambda gradient: see(f"backward {number}"))

        layer.register_forward_hook(after)

    for number, block in enumerate(task.blocks):
        watch(number, block.get_submodule("up"))
    with model.micro_batch(0):
        task.loss(task.model, range(2)).total.backward()
    first, second, third = (f"block-{number:03d}" for number in range(3))
    assert seen == {
        "forward 0": {first, second},
        "forward 1": {second, third},
        "forward 2": {third},
        "backward 2": {second, third},
        "backward 1": {first, second},
        "backward 0": {first},
    }
    assert all(one.full.untyped_storage().nbytes() == 0 for one in model.groups)
