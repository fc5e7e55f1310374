"""What `benchmarks/zero.py` measures: the model, the batch, and the variants. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from stages.model.config import DecoderConfig


@dataclass(frozen=True)
class Setting:
    """The model, the batch and the number of ranks."""

    hidden_size: int
    layers: int
    heads: int
    vocab_size: int
    length: int
    samples: int  # in a micro-batch
    micro_batches: int  # in a step, on each rank
    ranks: int

    @property
    def decoder(self) -> DecoderConfig:
        return DecoderConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            layers=self.layers,
            heads=self.heads,
            context_length=self.length,
            initial_deviation=0.02,
        )

    @property
    def targets(self) -> int:
        """Targets of a micro-batch."""
        return self.samples * self.length


@dataclass(frozen=True)
class Variant:
    """A library at a ZeRO stage."""

    library: str
    stage: int
    ranks: bool = True  # several ranks; otherwise one process

    @property
    def name(self) -> str:
        return f"{self.library} {self.stage}" if self.ranks else self.library


OURS = "bloomline"
ANY_ORDER = "any order"  # bloomline without its fixed order of sums
SHARDED = tuple(
    Variant(library, stage)
    for stage, libraries in enumerate(
        [
            (OURS, ANY_ORDER, "DDP"),
            (OURS, ANY_ORDER, "DeepSpeed"),
            (OURS, "FSDP2", "DeepSpeed"),
            (OURS, "FSDP2", "DeepSpeed"),
        ]
    )
    for library in libraries
)
SINGLE = (Variant(OURS, 0, ranks=False), Variant("transformers", 0, ranks=False))
