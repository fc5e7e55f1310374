"""Quantization: a model's matrices stored and computed with in int8, held to a limit on what that may cost.

Perplexity on held-out documents is measured before and after, after on the files that were written. If the loss rises
by more than the limit, the step fails and leaves nothing.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from stages.artifacts.checkpoint import WEIGHTS, Checkpoint, CheckpointForecast, known_config
from stages.artifacts.tokens import TokenDataset
from stages.base import Context, Demand, Resources, Stage, StageError
from stages.model.config import DecoderConfig
from stages.model.footprint import BATCH_SAMPLES, RUNTIME_BYTES, forward_bytes, weight_bytes


class Quantize(Stage):
    """A model's matrices in int8. Reads Checkpoint and TokenDataset, leaves Checkpoint."""

    headline: ClassVar[str] = "perplexity_increase"

    model: Checkpoint
    tokens: TokenDataset
    scheme: Literal["int8"] = Field("int8", description="symmetric, a scale for each row; activations by token")
    max_loss_increase: NonNegativeFloat = Field(0.02, description="nats per held-out token; more fails the step")
    sequence_length: PositiveInt = Field(256, description="tokens of one held-out sample")
    held_out_samples: PositiveInt = Field(128, description="spread evenly over the validation split")

    def demand(self) -> Demand:
        config = known_config(self.model)
        if config is None:
            return Demand()
        quantized = self._quantized(config)
        measuring = weight_bytes(config) + forward_bytes(config, BATCH_SAMPLES, self.sequence_length)
        quantizing = weight_bytes(config) + weight_bytes(quantized)
        return Demand(task=Resources(memory_bytes=RUNTIME_BYTES + max(measuring, quantizing)))

    def forecast(self) -> CheckpointForecast | None:
        config = known_config(self.model)
        return CheckpointForecast(config=self._quantized(config)) if config else None

    def _quantized(self, config: DecoderConfig) -> DecoderConfig:
        return config.model_copy(update={"quantization": self.scheme})

    def run(self, ctx: Context) -> Checkpoint:
        from stages.artifacts.held_out import held_out_loss, perplexity
        from stages.quantization.quantize_state import quantize_state

        done = 0

        def advance(samples: int) -> None:
            nonlocal done
            done += samples
            ctx.progress(done, 2 * self.held_out_samples, "sample")

        def loss_of(model: Checkpoint) -> float:
            return held_out_loss(model.load(), self.tokens, self.sequence_length, self.held_out_samples, advance)

        before = loss_of(self.model)
        state, config = quantize_state(self.model.state_dict(), self.model.config)
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
                f"quantized to {self.scheme}, the held-out loss rises by {after - before:.4f} nats per token, from "
                f"{before:.4f} to {after:.4f}; max_loss_increase allows {self.max_loss_increase}. Raise it if that is "
                "acceptable, or leave the model as it is"
            )
        return Checkpoint.save(ctx.out, state, config, self.model.tokenizer_path, facts | {"held_out_loss": after})
