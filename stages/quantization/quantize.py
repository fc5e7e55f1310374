"""Quantization of a trained model, with a limit on the loss that it may cost.

The loss on held-out documents is measured before and after, the latter on the files that were written. If it rises by
more than the limit, the step fails and leaves nothing.
"""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field, NonNegativeFloat, PositiveInt

from stages.artifacts.checkpoint import WEIGHTS, Checkpoint, CheckpointForecast, known_config
from stages.artifacts.tokenizer import check_same_tokenizer, refuse_other_tokenizer, tokenizer_step
from stages.artifacts.tokens import TokenDataset
from stages.base import Context, Demand, Resources, Stage, StageError
from stages.model.config import DecoderConfig, QuantizationName
from stages.model.footprint import BATCH_SAMPLES, RUNTIME_BYTES, forward_bytes, weight_bytes
from stages.model.perplexity import perplexity


class Quantize(Stage):
    """Quantizes the matrices of a model."""

    headline: ClassVar[str] = "perplexity_increase"
    spawns: ClassVar[bool] = False

    model: Checkpoint
    tokens: TokenDataset
    scheme: QuantizationName = Field("int8", description="int8: symmetric, one scale per row; activations by token")
    max_loss_increase: NonNegativeFloat = Field(0.02, description="nats per held-out token; the step fails above it")
    sequence_length: PositiveInt = Field(256, description="tokens of one held-out sample")
    held_out_samples: PositiveInt = Field(128, description="samples, spread evenly over the validation split")

    def demand(self) -> Demand:
        config = known_config(self.model)
        if config is None:
            return Demand()
        measuring = weight_bytes(config) + forward_bytes(config, BATCH_SAMPLES, self.sequence_length)
        quantizing = weight_bytes(config) + weight_bytes(self._quantized(config))
        return Demand(task=Resources(memory_bytes=RUNTIME_BYTES + max(measuring, quantizing)))

    def forecast(self) -> CheckpointForecast | None:
        config = known_config(self.model)
        refuse_other_tokenizer(self.model, self.tokens)
        tokenizer_of = tokenizer_step(self.model)
        return CheckpointForecast(config=self._quantized(config), tokenizer_of=tokenizer_of) if config else None

    def _quantized(self, config: DecoderConfig) -> DecoderConfig:
        return config.model_copy(update={"quantization": self.scheme})

    def run(self, ctx: Context) -> Checkpoint:
        from stages.artifacts.held_out_loss import held_out_loss
        from stages.quantization.state_dict import quantize_state_dict

        check_same_tokenizer(self.model.tokenizer_path, self.tokens.tokenizer_path)
        done = 0

        def advance(samples: int) -> None:
            nonlocal done
            done += samples
            ctx.progress(done, 2 * self.held_out_samples, "sample")

        def loss_of(model: Checkpoint) -> float:
            return held_out_loss(model.load(), self.tokens, self.sequence_length, self.held_out_samples, advance)

        before = loss_of(self.model)
        if not math.isfinite(before):
            raise StageError(
                f"the model's loss of held-out text is {before} before it is quantized: its activations overflow. "
                "Train it again, with a lower learning rate, for example"
            )
        state, config = quantize_state_dict(self.model.state_dict(), self.model.config, self.scheme)
        facts = {"quantized_from": dict(self.model.facts), "held_out_loss_before": before}
        quantized = Checkpoint.save(ctx.scratch / "quantized", state, config, self.model.tokenizer_path, facts)
        after = loss_of(quantized)
        bytes_before, bytes_after = ((one.path / WEIGHTS).stat().st_size for one in (self.model, quantized))
        measured = {
            "loss_before": before,
            "loss_after": after,
            "loss_increase": after - before,
            "perplexity_before": perplexity(before),
            "perplexity_after": perplexity(after),
            "perplexity_increase": perplexity(after) - perplexity(before),
            "bytes_before": float(bytes_before),
            "bytes_after": float(bytes_after),
        }
        ctx.metrics(measured)
        ctx.note(
            f"perplexity {perplexity(before):.3f} -> {perplexity(after):.3f}, {bytes_before / 1e6:.1f} MB -> "
            f"{bytes_after / 1e6:.1f} MB"
        )
        if not after - before <= self.max_loss_increase:
            raise StageError(
                f"quantization to {self.scheme} raises the held-out loss by {after - before:.4f} nats per token, from "
                f"{before:.4f} to {after:.4f}, but max_loss_increase allows {self.max_loss_increase}. Raise the limit "
                "if this loss is acceptable, or use the model as it is"
            )
        facts |= {"held_out_loss": after}
        return Checkpoint.save(
            ctx.out, state, config, self.model.tokenizer_path, facts, chat_template=self.model.chat_template
        )
