"""The decoder of `transformers`, built in memory from the tensors and config of an export."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from stages.huggingface.families import write_config
from stages.huggingface.tensor_conversion import export_tensors
from stages.model.decoder import Decoder


def reference(model: Decoder) -> Any:
    """The same model as an instance of its family's class in `transformers`, with all weights set."""
    family, values = write_config(model.config)
    kept = {name: value for name, value in values.items() if name not in ("architectures", "model_type")}
    other = getattr(transformers, family.architecture)(
        transformers.AutoConfig.for_model(family.name, **kept, attn_implementation="eager")
    )
    state: dict[str, Tensor] = {}
    export_tensors(family, model.config, model.state_dict(), state.__setitem__)
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert unexpected == []
    assert set(missing) <= ({"lm_head.weight"} if model.config.tied_head else set())
    other.tie_weights()
    return other.eval()


@torch.inference_mode()
def greedy(model: Decoder, tokens: Tensor, mask: Tensor, count: int) -> Tensor:
    """`count` greedy tokens after a batch padded on the left, all in one cache; never the end of text."""
    from stages.model.cache import KeyValueCache

    cache = KeyValueCache(model.config, len(tokens))
    logits = model(tokens, attention_mask=mask, cache=cache)[:, -1]
    for step in range(count):
        logits[:, model.config.eos_token_id] = -torch.inf
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
        if step < count - 1:
            logits = model(tokens[:, -1:], cache=cache)[:, -1]
    return tokens
