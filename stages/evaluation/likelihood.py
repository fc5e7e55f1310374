"""The negative log likelihood of documents under a model, with every token scored once.

Each document is scored independently, and begins as the model's documents do (`stages.artifacts.document_start`). Where
nothing stands before its first token, that token is predicted from an end of text alone, which precedes it in training,
and the others without it. A document longer than the model's context is scored in overlapping windows, so that every
token outside the first window has a minimum of context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from stages.model.decoder import Decoder
from stages.model.footprint import BATCH_TOKENS, LOGITS_LIMIT


@dataclass(frozen=True)
class Window:
    """Input tokens [start, stop) of a document, of which the targets [scored, stop) are scored in this window.

    Target i is the token after input i.
    """

    document: int
    start: int
    stop: int
    scored: int


def windows(lengths: Sequence[int], context: int, overlap: int, first: int = 0) -> list[Window]:
    """Windows that score every target from `first` on exactly once, for documents with these numbers of targets.

    context: the largest number of inputs of a window. overlap: targets of every window but a document's first that an
    earlier window has scored, in [0, context). Raises ValueError if it is not, or if `first` is not in [0, context).
    """
    if not 0 <= first < context:
        raise ValueError(f"a document that begins with {first} tokens does not fit a context of {context}")
    if not 0 <= overlap < context:
        raise ValueError(f"an overlap of {overlap} tokens does not fit a context of {context}: expected less")
    found = []
    for document, length in enumerate(lengths):
        scored = first
        while scored < length:
            stop = min(length, context if scored == first else scored + context - overlap)
            found.append(Window(document, max(0, stop - context), stop, scored))
            scored = stop
    return found


@torch.inference_mode()
def document_nats(
    model: Decoder,
    documents: Sequence[Sequence[int]],
    *,
    start: Sequence[int],
    end_of_text: int,
    overlap: int,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """-ln p(document) of each document, float64 [documents].

    documents: the token ids of each. start: the tokens that begin every document, which are not scored.
    end_of_text: the token after every document. overlap: see `windows`. batch_tokens: the approximate number of tokens
    of one forward pass. progress: called with the numbers of windows done and of all.
    """
    device = model.word_embeddings.weight.device
    nats = np.zeros(len(documents)) if start else _first_tokens(model, documents, end_of_text)
    first = max(len(start) - 1, 0)
    lengths = [len(start) + len(document) - 1 for document in documents]
    pending = windows(lengths, model.config.context_length, overlap, first)
    pending.sort(key=lambda window: (window.start - window.stop, window.document, window.start))  # longest first
    done = 0
    while done < len(pending):
        width = pending[done].stop - pending[done].start
        batch = pending[done : done + max(1, batch_tokens // width)]
        inputs = torch.zeros(len(batch), width, dtype=torch.long)
        targets = torch.full((len(batch), width), -1)
        for row, window in enumerate(batch):
            tokens = torch.tensor([*start, *documents[window.document]])[window.start : window.stop + 1]
            # Attention is causal, so the padding on the right of a shorter window has no effect on it.
            inputs[row, : len(tokens) - 1] = tokens[:-1]
            skipped = window.scored - window.start
            targets[row, skipped : len(tokens) - 1] = tokens[1 + skipped :]
        rows, columns = (targets >= 0).nonzero(as_tuple=True)
        hidden = model.hidden_states(inputs.to(device))[rows.to(device), columns.to(device)]
        losses = _losses(model, hidden, targets[rows, columns].to(device)).double().cpu().numpy()
        np.add.at(nats, [batch[row].document for row in rows.tolist()], losses)
        done += len(batch)
        progress(done, len(pending))
    return nats


def _first_tokens(model: Decoder, documents: Sequence[Sequence[int]], end_of_text: int) -> np.ndarray:
    """-ln p(first token) of each document after an end of text, float64 [documents]."""
    device = model.word_embeddings.weight.device
    logits = model(torch.tensor([[end_of_text]], device=device))[0, 0]
    nats: np.ndarray = -logits.float().log_softmax(dim=-1).double().cpu().numpy()
    return np.array([nats[document[0]] if document else 0.0 for document in documents])


def _losses(model: Decoder, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy [tokens] in fp32, computed in chunks to bound the memory of the logits."""
    chunk = max(1, LOGITS_LIMIT // model.config.vocab_size)
    parts = zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
    return torch.cat([F.cross_entropy(model.logits(part).float(), wanted, reduction="none") for part, wanted in parts])
