"""Completions of prompts, greedy or sampled with a seed."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer as LoadedTokenizer

from stages.artifacts.evaluation_report import Completion
from stages.model.cache import KeyValueCache
from stages.model.decoder import Decoder


@torch.inference_mode()
def complete(
    model: Decoder,
    tokenizer: LoadedTokenizer,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Completion:
    """What the model adds to `prompt`, to the end of the text or `max_tokens`. A temperature of 0 is greedy.

    The prompt stands at the start of a document; of a prompt too long for the context the end is used.
    """
    end, room = model.config.eos_token_id, model.config.context_length - max_tokens
    if room < 1:
        raise ValueError(f"max_tokens {max_tokens} leaves no room for a prompt in {model.config.context_length} tokens")
    prompt_ids = [end, *tokenizer.encode(prompt, add_special_tokens=False).ids][-room:]
    device = model.word_embeddings.weight.device
    cache = KeyValueCache(model.config, 1, len(prompt_ids) + max_tokens, dtype=_activations(model), device=device)
    generator = torch.Generator().manual_seed(seed)
    step = torch.tensor([prompt_ids], device=device)
    made: list[int] = []
    while len(made) < max_tokens:
        logits = model(step, cache=cache)[0, -1].float().cpu()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        if token == end:
            break
        made.append(token)
        step = torch.tensor([[token]], device=device)
    text = tokenizer.decode(made, skip_special_tokens=True)
    return Completion(prompt=prompt, text=text, temperature=temperature, tokens=len(made))


def _activations(model: Decoder) -> torch.dtype:
    return model.ln_f.weight.dtype
