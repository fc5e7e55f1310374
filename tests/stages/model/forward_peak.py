"""Measures the peak memory of a forward pass: a program, so that nothing else is in the process.

Arguments: a DecoderConfig as JSON, samples, tokens of one sample. Prints the bytes of resident memory that computing
the losses of one batch adds to a process that holds the model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.nn import functional

from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder
from stages.model.footprint import LOGITS_LIMIT


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (the highest so far) of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10


@torch.inference_mode()
def losses(model: Decoder, samples: int, length: int) -> None:
    """Hidden states of a batch of packed documents, then losses with at most `LOGITS_LIMIT` logits at a time."""
    vocabulary = model.config.vocab_size
    tokens = torch.randint(0, vocabulary, (samples, length + 1), generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(length) > length // 3).long().expand(samples, -1)
    hidden = model.hidden_states(tokens[:, :-1], documents=documents).flatten(0, 1)
    targets = tokens[:, 1:].flatten()
    rows = max(1, LOGITS_LIMIT // vocabulary)
    for part, wanted in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True):
        functional.cross_entropy(model.logits(part).float(), wanted, reduction="none")


def main(config_json: str, samples: int, length: int) -> None:
    config = DecoderConfig.model_validate_json(config_json)
    with torch.device("meta"):
        model = Decoder(config)
    model = model.to_empty(device="cpu").eval()
    for name, tensor in model.state_dict().items():  # the pages of the weights are resident before the pass
        tensor.fill_(0.01 if name.endswith("scale") else 1)
    losses(model, 1, 8)  # kernels and their threads are loaded before the pass
    before = resident_bytes("VmRSS")
    losses(model, samples, length)
    print(resident_bytes("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
