"""One training step of the same decoder in this library and in its peers, for `benchmarks/zero.py`.

All train with AdamW in float32, clip at the same global norm, and minimise the mean over the targets of all ranks.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.zero_setting import ANY_ORDER, OURS, Setting, Variant
from stages.model.decoder import Decoder
from stages.model.head_loss import cross_entropy
from stages.model.initialise import initial_values, initialise
from stages.parallel.collectives import Collectives
from stages.training.recipe import Execution, Recipe
from stages.training.task import Loss, Task
from stages.training.zero import ShardedModel

RATE, CLIP, DECAY, BETAS, EPSILON = 1e-3, 1.0, 0.1, (0.9, 0.95), 1e-8
Batches = Sequence[Tensor]  # this rank's micro-batches, each [samples, length + 1] int64
Step = Callable[[Batches], float]  # one optimizer step; the mean loss of this rank's targets


class Losses(nn.Module):
    """The decoder and its loss in one module, so that a wrapper's hooks enclose every use of the parameters."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.decoder = Decoder(setting.decoder)
        initialise(self.decoder, 0)

    def forward(self, tokens: Tensor) -> Tensor:
        return mean_loss(self.decoder, tokens)


def mean_loss(decoder: Decoder, tokens: Tensor) -> Tensor:
    hidden = decoder.hidden_states(tokens[:, :-1])
    return cross_entropy(decoder, hidden, tokens[:, 1:]) / (tokens.numel() - len(tokens))


def _unused(model: nn.Module, samples: Sequence[int]) -> Loss:
    raise NotImplementedError("the benchmark computes the losses outside of the task")


def ours(setting: Setting, stage: int, free_order_ranks: int | None = None) -> Step:
    with torch.device("meta"):
        model = Decoder(setting.decoder)
    task = Task(
        model,
        partial(initial_values, setting.decoder, 0),
        list(model.blocks),
        loss=_unused,
        validation_loss=_unused,
        validation_samples=0,
        stem=[model.word_embeddings, model.word_embeddings_layernorm],
        head=[model.ln_f, model.word_embeddings],
    )
    recipe = Recipe(
        global_batch_size=setting.samples * setting.micro_batches * setting.ranks,
        micro_batch_size=setting.samples,
        sequence_length=setting.length,
        weight_decay=DECAY,
        beta1=BETAS[0],
        beta2=BETAS[1],
        epsilon=EPSILON,
        free_order_ranks=free_order_ranks,
    )
    rank = dist.get_rank() if setting.ranks > 1 else 0
    execution = Execution.model_validate({"zero_stage": stage, "ranks": setting.ranks})
    sharded = ShardedModel(task, recipe, execution, Collectives(rank, setting.ranks))
    sharded.initialise(task.initial)
    count, done = setting.micro_batches * setting.ranks, 0

    def step(batches: Batches) -> float:
        nonlocal done
        total = 0.0
        for turn, tokens in zip(sharded.turns(), batches, strict=True):
            with sharded.micro_batch(turn):
                loss = mean_loss(model, tokens)
                loss.backward()
            total += float(loss)
        norm = sharded.reduce() / count
        done += 1
        sharded.update(RATE, min(1.0, CLIP / (norm + 1e-6)) / count, done)
        return total / len(batches)

    return step


def any_order(setting: Setting, stage: int) -> Step:
    return ours(setting, stage, free_order_ranks=setting.ranks)


def ddp(setting: Setting, stage: int) -> Step:
    from torch.nn.parallel import DistributedDataParallel

    model = DistributedDataParallel(Losses(setting), gradient_as_bucket_view=True)
    return accumulated(model, model.no_sync, adamw(model))


def fsdp2(setting: Setting, stage: int) -> Step:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = Losses(setting)
    mesh = init_device_mesh("cpu", (setting.ranks,))
    for block in model.decoder.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=stage == 3)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for module in model.modules():
        force_sum: Callable[[bool], None] | None = getattr(module, "set_force_sum_reduction_for_comms", None)
        if force_sum:
            force_sum(True)  # gloo's mean was wrong in some versions
    return accumulated(model, nullcontext, adamw(model))


def deepspeed(setting: Setting, stage: int) -> Step:
    import deepspeed as library

    model = Losses(setting)
    bucket = sum(
        parameter.numel() for parameter in model.decoder.blocks[0].parameters()
    )  # the size of a block, as in this library
    config = {
        "train_micro_batch_size_per_gpu": setting.samples,
        "gradient_accumulation_steps": setting.micro_batches,
        "gradient_clipping": CLIP,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "stage3_param_persistence_threshold": 0,
            "stage3_prefetch_bucket_size": 0,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
    }
    if stage == 3:
        library.zero.register_external_parameter(model, model.decoder.word_embeddings.weight)
    engine, *_ = library.initialize(model=model, optimizer=adamw(model), config=config, dist_init_required=False)

    def step(batches: Batches) -> float:
        total = 0.0
        for tokens in batches:
            loss = engine(tokens)
            engine.backward(loss)
            engine.step()
            total += float(loss)
        return total / len(batches)

    return step


def transformers(setting: Setting, stage: int) -> Step:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(
        vocab_size=setting.vocab_size,
        hidden_size=setting.hidden_size,
        n_layer=setting.layers,
        n_head=setting.heads,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cache=False,
    )
    model = BloomForCausalLM(config)
    ours = Losses(setting).decoder
    own = model.state_dict()
    for name, value in ours.state_dict().items():
        own["transformer." + name.replace("blocks.", "h.")].copy_(value)

    def forward(tokens: Tensor) -> Tensor:
        logits = model(tokens[:, :-1]).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return accumulated(model.train(), nullcontext, adamw(model), forward)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """AdamW without decay of norms and biases, with the fused kernel, which is the fastest."""
    parameters = list(model.parameters())
    groups = [
        {"params": [one for one in parameters if one.dim() > 1], "weight_decay": DECAY},
        {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON, fused=True)


def accumulated(
    model: nn.Module, unsynced: Callable[[], Any], optimizer: torch.optim.Optimizer, forward: Any = None
) -> Step:
    """A step with gradient accumulation, as in torch's documentation."""

    def step(batches: Batches) -> float:
        total = 0.0
        for number, tokens in enumerate(batches, 1):
            with unsynced() if number < len(batches) else nullcontext():
                loss = (forward or model)(tokens) / len(batches)
                loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


BUILDERS: Mapping[str, Callable[[Setting, int], Step]] = {
    OURS: ours,
    ANY_ORDER: any_order,
    "DDP": ddp,
    "FSDP2": fsdp2,
    "DeepSpeed": deepspeed,
    "transformers": transformers,
}
MODULES = {"DeepSpeed": "deepspeed", "transformers": "transformers"}


def build(variant: Variant, setting: Setting) -> Step:
    """Raises RuntimeError if the library is not installed."""
    module = MODULES.get(variant.library, "torch")
    if importlib.util.find_spec(module) is None:
        raise RuntimeError(f"{module} is not installed")
    return BUILDERS[variant.library](setting, variant.stage)
