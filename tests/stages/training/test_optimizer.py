"""The optimizer, compared with torch's AdamW step by step."""

from __future__ import annotations

import pytest
import torch
from torch.optim import AdamW

from stages.parallel.collectives import Collectives
from stages.training.recipe import Execution, Precision, Recipe
from stages.training.zero import ShardedModel
from tests.stages.training.toy import RECIPE, Toy, build


@pytest.mark.parametrize("place", ["none", "file"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_equals_the_adamw_of_torch(precision: Precision, place: str) -> None:
    """Compared with AdamW in double precision on the same gradients, with different rates and scales in each step."""
    fields = {"precision": precision, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3, "weight_decay": 0.3}
    recipe = Recipe.model_validate(RECIPE.model_dump() | fields | {"global_batch_size": 2})
    task = build(recipe)
    model = ShardedModel(task, recipe, Execution.model_validate({"offload_optimizer": place}), Collectives())
    model.initialise(task.initial)
    exact = Toy(17, 2).double()
    by_name = dict(exact.named_parameters())
    with torch.no_grad():
        for name, parameter in by_name.items():
            parameter.copy_(task.initial(name, 0, parameter.numel()).view(parameter.shape))
    of_decay = [[one for one in by_name.values() if (one.dim() > 1) is decayed] for decayed in (True, False)]
    groups = [{"params": of_decay[0], "weight_decay": 0.3}, {"params": of_decay[1], "weight_decay": 0.0}]
    optimizer = AdamW(groups, betas=(0.8, 0.9), eps=1e-3)
    for step, (rate, scale) in enumerate([(0.01, 0.5), (0.02, 0.01), (0.005, 1.0)], start=1):
        with model.micro_batch(0):
            task.loss(task.model, range(2 * step, 2 * step + 2)).total.backward()
        model.reduce()
        for buffers in model.groups:
            assert buffers.gradient is not None
            for slot in buffers.layout.slots:
                gradient = buffers.gradient[slot.offset : slot.end].view(slot.shape)
                by_name[slot.name].grad = scale * gradient.double()
        model.update(rate, scale, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        for buffers in model.groups:
            with buffers.states() as states:
                for slot in buffers.layout.slots:
                    master = states["master"][slot.offset : slot.end].view(slot.shape)
                    torch.testing.assert_close(master.double(), by_name[slot.name].data, rtol=1e-5, atol=1e-6)
