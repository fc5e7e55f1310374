import queue

import pytest
import torch

from stages.inference.batch import DecoderBatch
from stages.inference.engine import Engine, Event
from stages.inference.sampling import Sampling
from stages.model.config import ExpertsConfig
from stages.model.decoder import Decoder
from stages.quantization.state_dict import quantize_state_dict
from tests.stages.model.models import random_tokens, shaped, small_config, small_model

TABLE = [bytes([index % 256]) for index in range(300)]


EXPERTS = ExpertsConfig(per_layer=(0, 4), top_k=2, residual=True)


MODELS = {
    "dense": small_config(),
    "experts": small_config(experts=EXPERTS),
    "quantized experts": small_config(experts=EXPERTS),
    "opt": shaped("opt"),
    "llama": shaped("llama"),
    "quantized llama": shaped("llama"),
    "palm": shaped("palm"),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Decoder:
    plain = small_model(MODELS[request.param])
    if not request.param.startswith("quantized"):
        return plain
    state, config = quantize_state_dict(plain.state_dict(), plain.config, "int8")
    model = Decoder(config)
    model.load_state_dict(state, assign=True)
    return model.eval()


def greedy(model: Decoder, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding without a cache or a batch."""
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_the_engine_writes_what_the_plain_model_writes_at_any_mix_of_lengths(model: Decoder) -> None:
    prompts = [random_tokens(1, 3 + 7 * index, seed=index)[0].tolist() for index in range(7)]
    lengths = [25, 3, 14, 1, 30, 8, 20]
    engine = Engine(DecoderBatch(model, 3), TABLE, end_tokens=(), prefill_chunk=8)
    try:
        queues: list[queue.Queue[Event]] = [queue.Queue() for _ in prompts]
        for prompt, length, events in zip(prompts, lengths, queues, strict=True):
            engine.submit([(prompt, Sampling(max_tokens=length, temperature=0), events.put)])
        for prompt, length, events in zip(prompts, lengths, queues, strict=True):
            assert [events.get(timeout=30).token for _ in range(length)] == greedy(model, prompt, length)
    finally:
        engine.close()


def test_released_slots_leave_nothing_behind(model: Decoder) -> None:
    batch = DecoderBatch(model, 3)
    for slot, length in ((2, 5), (0, 9), (1, 3)):
        batch.read(slot, list(range(length)), every=False)
    batch.step({2: 1, 1: 4})
    expected = DecoderBatch(model, 1)
    expected.read(0, [*range(9)], every=False)
    for slot in (2, 1):
        batch.release(slot)
    assert torch.allclose(batch.step({0: 7}), expected.step({0: 7}), atol=1e-5)
    batch.release(0)
    batch.release(0)  # nothing there: nothing happens
    assert all(not tensor.any() for tensor in (*batch._cache.keys, *batch._cache.values))


def test_all_logits_of_a_prompt(model: Decoder) -> None:
    tokens = random_tokens(1, 12)[0].tolist()
    batch = DecoderBatch(model, 2)
    pieces = [batch.read(1, tokens[:5], every=True), batch.read(1, tokens[5:], every=True)]
    with torch.inference_mode():
        whole = model(torch.tensor([tokens]))[0]
    assert torch.allclose(torch.cat(pieces), whole, atol=1e-4)


def test_a_step_keeps_the_order_it_was_asked_in(model: Decoder) -> None:
    batch = DecoderBatch(model, 3)
    for slot in (0, 1, 2):
        batch.read(slot, [slot + 4, 9], every=False)
    logits = batch.step({2: 5, 0: 6, 1: 7})
    for index, (slot, token) in enumerate(((2, 5), (0, 6), (1, 7))):
        alone = DecoderBatch(model, 1)
        alone.read(0, [slot + 4, 9], every=False)
        assert torch.allclose(alone.step({0: token})[0], logits[index], atol=1e-4)


def test_warming_up_leaves_the_slots_empty() -> None:
    batch = DecoderBatch(small_model(small_config(layers=1)), 2)
    batch.warm_up()
    assert batch._rows == []
    assert batch._cache.lengths.tolist() == [0, 0]
