"""Completions continue their prompts, greedily or by seed, and equal those of a server."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import torch
from tokenizers import Tokenizer

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.evaluation_report import Completion
from stages.evaluation.completions import complete
from stages.inference.generate import generate
from stages.inference.sampling import Sampling
from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder
from stages.quantization.state_dict import quantize_state_dict
from stages.serving.http import create
from tests.stages.model.models import byte_tokenizer, shaped, small_config, small_model
from tests.stages.serving.support import serving


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(byte_tokenizer(tmp_path / "tokenizer.json")))


def complete_one(
    model: Decoder, tokenizer: Tokenizer, prompt: str, max_tokens: int, temperature: float = 0.0, seed: int = 0
) -> Completion:
    (found,) = complete(model, tokenizer, [prompt], max_tokens=max_tokens, temperatures=[temperature], seed=seed)
    return found


def test_a_greedy_completion_is_the_most_likely_token_each_time(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260))
    found = complete_one(model, tokenizer, "hello", 12)
    ids = tokenizer.encode("hello").ids
    for _ in range(12):
        token = int(model(torch.tensor([ids]))[0, -1].argmax())  # without a cache and without a batch
        if token == 2:
            break
        ids.append(token)
    assert found.text == tokenizer.decode(ids[5:])
    assert (found.prompt, found.temperature, found.tokens) == ("hello", 0, len(ids) - 5)


def test_samples_repeat_with_their_seed(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260))
    texts = [complete_one(model, tokenizer, "x", 20, temperature=1.0, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_samples_are_the_draws_of_the_definition(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260))
    generator = torch.Generator().manual_seed(3)
    ids = tokenizer.encode("hello").ids
    for _ in range(25):
        probabilities = (model(torch.tensor([ids]))[0, -1].detach() / 0.8).softmax(-1)
        token = int(torch.multinomial(probabilities, 1, generator=generator))
        if token == 2:
            break
        ids.append(token)
    assert complete_one(model, tokenizer, "hello", 25, 0.8, seed=3).text == tokenizer.decode(ids[5:])


def test_completions_are_in_the_order_of_temperatures_and_then_prompts(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260))
    found = complete(model, tokenizer, ["a", "b"], max_tokens=6, temperatures=[0.0, 1.0], seed=4)
    assert [(one.temperature, one.prompt) for one in found] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert found[3] == complete_one(model, tokenizer, "b", 6, 1.0, seed=4)


def test_a_completion_ends_with_the_text(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260))
    end = model.word_embeddings.weight[2]
    with torch.no_grad():  # the head is tied: the last normalisation points at the end of text, whatever came before
        model.get_parameter("ln_f.weight").zero_()
        model.get_parameter("ln_f.bias").copy_(100 * end)
    assert complete_one(model, tokenizer, "x", 5).tokens == 0


def test_the_end_of_a_long_prompt_is_used(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260, context_length=32))
    long, end = "a" * 100 + "bcdefghijklmnopqrstuvwx", "bcdefghijklmnopqrstuvwx"
    assert complete_one(model, tokenizer, long, 9).text == complete_one(model, tokenizer, "a" * 9 + end, 9).text
    with pytest.raises(ValueError, match="leaves no space"):
        complete_one(model, tokenizer, "x", 32)


def test_a_long_prompt_keeps_the_beginning_of_a_document(tokenizer: Tokenizer) -> None:
    """The end of the prompt fills the rest of the context."""
    config = small_config(vocab_size=260, context_length=32, document_start=(1,))
    model, plain = small_model(config), small_model(config.model_copy(update={"document_start": ()}))
    cut = tokenizer.encode("bcdefghijklmnopqrstuvw").ids
    (wanted,) = generate(plain, [[1, *cut]], tokenizer, Sampling(max_tokens=9, temperature=0))
    assert complete_one(model, tokenizer, "a" * 50 + "bcdefghijklmnopqrstuvw", 9).text == wanted.text


@pytest.mark.parametrize("kind", ["bloom", "llama", "int8"])
def test_a_server_writes_the_text_of_an_evaluation(kind: str, tmp_path: Path) -> None:
    config: DecoderConfig = shaped("llama" if kind == "llama" else "bloom").model_copy(update={"vocab_size": 260})
    model, tokenizer_json = small_model(config), byte_tokenizer(tmp_path / "tokenizer.json")
    state, config = (
        quantize_state_dict(model.state_dict(), config, "int8") if kind == "int8" else (model.state_dict(), config)
    )
    checkpoint = Checkpoint.save(tmp_path / "model", state, config, tokenizer_json, {})
    prompts, temperatures, seed = ["def ", "héllo", "x"], [0.0, 0.8], 7
    evaluated = complete(
        checkpoint.load(), checkpoint.tokenizer(), prompts, max_tokens=24, temperatures=temperatures, seed=seed
    )
    with serving(create({"model": str(checkpoint.path), "max_running": 2})) as url:
        for one in evaluated:
            body = {"prompt": one.prompt, "temperature": one.temperature, "seed": seed, "max_tokens": 24}
            answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
            assert answer["choices"][0]["text"] == one.text
            assert answer["usage"]["completion_tokens"] == one.tokens
    assert len({one.text for one in evaluated}) > len(prompts)
