"""Mixture-of-experts conversion: a dense model is converted to a mixture of experts and trained further.

The conversion is verified before training: on held-out and on random tokens, the logits of the converted model must
equal those of the dense model, otherwise the step fails and reports the difference. In training the gates learn and the
experts diverge. The load of the experts is recorded before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveInt

from stages.artifacts.checkpoint import Checkpoint, CheckpointForecast, known_config
from stages.artifacts.tokenizer import check_same_tokenizer, refuse_other_tokenizer, tokenizer_step
from stages.artifacts.tokens import TokenDataset
from stages.base import Context, Demand, Resources, Stage, StageError
from stages.model.config import DecoderConfig, expert_config
from stages.model.footprint import RUNTIME_BYTES, forward_bytes, weight_bytes
from stages.model.parameters import parameter_count
from stages.training import memory_plan
from stages.training.recipe import Recipe, Training
from stages.training.task import Loss, Task

if TYPE_CHECKING:
    from stages.artifacts.windows import Batch
    from stages.model.decoder import Decoder
    from stages.model.feed_forward import Routing

# The largest difference of a logit, as a fraction of the largest logit: float32 rounds relative to what it adds.
PARITY_TOLERANCE = 1e-5
PARITY_SAMPLES = 4  # held-out samples on which logits are compared; the number of random samples is the same


class ConvertToExperts(Stage, Training):
    """Converts a dense model to a mixture of experts and trains it."""

    headline: ClassVar[str] = "validation_loss"

    model: Checkpoint
    tokens: TokenDataset
    experts: PositiveInt | tuple[PositiveInt, ...] = Field(
        4,
        description="copies of the network of each converted layer; a list names them one by one, bottom first",
    )
    every: PositiveInt = Field(2, description="convert every n-th layer, counted down from the topmost")
    top_k: PositiveInt = Field(1, description="copies that each token passes through")
    granularity: PositiveInt = Field(1, description="experts that each copy is cut into")
    residual: bool = Field(False, description="keep the dense network next to the experts (PR-MoE)")
    load_balancing: NonNegativeFloat = Field(0.01, description="weight of the load-balancing loss")
    separate_documents: bool = Field(True, description="packed documents do not attend to each other")

    def demand(self) -> Demand:
        dense = known_config(self.model)
        config = self._converted(dense) if dense else None
        converting = 0
        if dense and config:
            # Both models are in memory when their logits are compared.
            compared = forward_bytes(config, PARITY_SAMPLES, self.sequence_length)
            converting = RUNTIME_BYTES + weight_bytes(dense) + weight_bytes(config) + compared
        return memory_plan.demand(config, self, Resources(cpus=0, memory_bytes=converting))

    def forecast(self) -> CheckpointForecast | None:
        dense = known_config(self.model)
        refuse_other_tokenizer(self.model, self.tokens)
        tokenizer_of = tokenizer_step(self.model)
        return CheckpointForecast(config=self._converted(dense), tokenizer_of=tokenizer_of) if dense else None

    def _converted(self, dense: DecoderConfig) -> DecoderConfig:
        return expert_config(dense, self._copies(dense.layers), self.top_k, self.granularity, self.residual)

    def cheaper_settings(self) -> Iterable[Mapping[str, object]]:
        return memory_plan.cheaper_settings(self)

    def run(self, ctx: Context) -> Checkpoint:
        from stages.experts.expert_load import load_figure, load_metrics, measure_loads
        from stages.experts.upcycle import upcycle
        from stages.training import checkpoints, report
        from stages.training.gang import train_on_gang

        check_same_tokenizer(self.model.tokenizer_path, self.tokens.tokenizer_path)
        dense = self.model.load()
        config = self._converted(dense.config)
        facts = {"converted_from": dict(self.model.facts), "parameters_before": parameter_count(dense.config)}
        converted = Checkpoint.save(
            ctx.scratch / "converted",
            upcycle(dense.state_dict(), dense.config, config, self.seed),
            config,
            self.model.tokenizer_path,
            facts,
        )
        before = converted.load()
        difference, largest = self._check_parity(dense, before)
        ctx.metrics({"conversion_logit_difference": difference, "parameters": parameter_count(config)})
        ctx.note(
            f"the logits of the converted model equal those of the dense model: largest difference {difference:.2g}, "
            f"largest logit {largest:.3g}"
        )
        loads_before = measure_loads(before, self._held_out(self.validation_samples))
        ctx.metrics(load_metrics(loads_before), step=0)
        del dense, before

        build = partial(
            expert_training_task,
            converted=converted.path,
            tokens=self.tokens.path,
            load_balancing=self.load_balancing,
            separate_documents=self.separate_documents,
        )
        identity = f"{config.model_dump_json()} {self.load_balancing} {self.separate_documents}"
        result = train_on_gang(ctx, self, self.demand(), build, identity)
        facts |= report.facts(result) | {"conversion_logit_difference": difference}
        weights = checkpoints.weights(Path(result.checkpoint))
        trained = Checkpoint.save(ctx.out, weights, config, self.model.tokenizer_path, facts)
        loads_after = measure_loads(trained.load(), self._held_out(self.validation_samples))
        ctx.metrics(load_metrics(loads_after), step=result.steps)
        report.figures(ctx, result, config, self, self)
        ctx.figure("expert_load", load_figure(loads_before, loads_after))
        return trained

    def _copies(self, layers: int) -> tuple[int, ...]:
        """The number of copies of the network of each layer, [layers]; 0 for layers that stay dense."""
        places = list(range(layers - 1, -1, -self.every))[::-1]
        counts = [self.experts] * len(places) if isinstance(self.experts, int) else list(self.experts)
        if len(counts) != len(places):
            raise StageError(
                f"experts lists {len(counts)} layers, but every={self.every} converts {len(places)} of {layers}: "
                "list one number for each, or give a single number"
            )
        of_layer = dict(zip(places, counts, strict=True))
        return tuple(of_layer.get(layer, 0) for layer in range(layers))

    def _held_out(self, samples: int) -> Sequence[Batch]:
        from stages.artifacts.held_out_loss import held_out_batches

        return list(held_out_batches(self.tokens, self.sequence_length, samples))

    def _check_parity(self, dense: Decoder, converted: Decoder) -> tuple[float, float]:
        """The largest difference between the logits of the two models, and the largest logit of the dense one.

        Raises StageError if the difference is more than the fraction `PARITY_TOLERANCE` of that logit.
        """
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        inputs, _, documents = self._held_out(PARITY_SAMPLES)[0]
        random = torch.randint(0, dense.config.vocab_size, inputs.shape, generator=generator)
        difference = largest = torch.tensor(0.0)
        with torch.inference_mode():
            for tokens, of_documents in ((inputs, documents), (inputs, None), (random, None)):
                ours = converted(tokens, documents=of_documents)
                wanted = dense(tokens, documents=of_documents)
                difference = torch.maximum(difference, (ours - wanted).abs().max())  # not a number, if one is not
                largest = torch.maximum(largest, wanted.abs().max())
        if not difference <= PARITY_TOLERANCE * largest:
            raise StageError(
                f"the logits of the converted model differ from those of the dense model by up to {difference:.3g}, "
                f"and the largest logit is {largest:.3g}; the tolerance is {PARITY_TOLERANCE:.0e} of it: the "
                "conversion does not preserve the model"
            )
        return float(difference), float(largest)


def expert_training_task(
    recipe: Recipe, converted: Path, tokens: Path, load_balancing: float, separate_documents: bool
) -> Task:
    """The task of training a converted model, which the training loop builds on every rank."""
    import torch

    from stages.experts.expert_load import BALANCE, balance_metrics
    from stages.training.initial_weights import initial_weights
    from stages.training.language_modelling import language_modelling, next_token_loss

    def loss(model: Decoder, batch: Batch, separate_documents: bool) -> Loss:
        routings: list[Routing] = []
        prediction = next_token_loss(model, batch, separate_documents, routings)
        balance = torch.stack([routing.balance_loss() for routing in routings]).mean()
        return replace(
            prediction,
            total=prediction.total + load_balancing * balance * prediction.targets,
            reported=prediction.total,
            metrics=balance_metrics(routings) * prediction.targets,
        )

    from stages.model.decoder import Decoder

    checkpoint, dataset = Checkpoint(converted), TokenDataset(tokens)
    with torch.device("meta"):
        model = Decoder(checkpoint.config)
    task = language_modelling(
        model, initial_weights(checkpoint), dataset, recipe, separate_documents=separate_documents, loss=loss
    )
    return replace(task, metric_names=BALANCE)
