"""Offline generation: every prompt is completed as the engine would complete it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders

from stages.base import ArtifactError, StageError
from stages.inference.generate import generate
from stages.inference.sampling import Sampling
from stages.inference.text import prompt_tokens
from stages.model.decoder import Decoder
from tests.stages.model.models import byte_tokenizer, small_config, small_model

END = 2


@pytest.fixture(scope="module")
def model() -> Decoder:
    return small_model(small_config(vocab_size=300, context_length=64))  # a head with more rows than there are tokens


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(byte_tokenizer(tmp_path / "tokenizer.json")))


def test_completions_are_in_the_order_of_the_prompts_and_the_same_in_any_batch(
    model: Decoder, tokenizer: Tokenizer
) -> None:
    prompts = ["hello", "a", "def __init__(self, ", "xy"] * 2
    samplings = [
        Sampling(max_tokens=5 + 3 * index, temperature=0.9 * (index % 2), seed=index) for index in range(len(prompts))
    ]
    together = generate(model, prompts, tokenizer, samplings, slots=3, prefill_chunk=4)
    alone = [generate(model, [prompt], tokenizer, one)[0] for prompt, one in zip(prompts, samplings, strict=True)]
    assert together == alone
    for one, sampling in zip(together, samplings, strict=True):
        assert one.text == tokenizer.decode(one.tokens)
        assert (len(one.tokens) == sampling.max_tokens) == (one.finish_reason == "length")
        assert max(one.tokens) < 260


def test_a_text_begins_a_document_and_tokens_are_read_as_they_are(model: Decoder, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("hello").ids
    sampling = Sampling(max_tokens=20, seed=1, prompt_logprobs=True)
    text, document, bare = generate(model, ["hello", [END, *ids], ids], tokenizer, sampling)
    assert text == document
    assert [len(one.prompt_logprobs) for one in (text, bare)] == [len(ids) + 1, len(ids)]


def test_log_probabilities_are_those_of_a_forward_pass(model: Decoder, tokenizer: Tokenizer) -> None:
    sampling = Sampling(max_tokens=6, temperature=0, logprobs=2, prompt_logprobs=True)
    (found,) = generate(model, ["hello"], tokenizer, sampling)
    prompt = prompt_tokens(tokenizer, "hello", END)
    tokens = [*prompt, *found.tokens]
    logits = model(torch.tensor([tokens]))[0].detach()[:, :260]
    scores = logits.log_softmax(-1)
    expected = [float(scores[place, token]) for place, token in enumerate(tokens[1:])]
    assert found.prompt_logprobs[0].chosen is None
    reported = [one.chosen for one in (*found.prompt_logprobs[1:], *found.logprobs)]
    assert reported == pytest.approx(expected, abs=1e-3)
    assert [one.top[0][0] for one in found.logprobs] == list(found.tokens)


def test_every_end_token_of_the_model_ends_the_text(model: Decoder, tokenizer: Tokenizer) -> None:
    sampling = Sampling(max_tokens=20, seed=3)
    whole = generate(model, ["hello"], tokenizer, sampling)[0].tokens
    several = small_model(model.config.model_copy(update={"other_end_token_ids": (whole[4], 299)}))
    (found,) = generate(several, ["hello"], tokenizer, sampling)
    assert (found.tokens, found.finish_reason) == (whole[: whole.index(whole[4])], "stop")


def test_stop_strings_end_the_text(model: Decoder, tokenizer: Tokenizer) -> None:
    sampling = Sampling(max_tokens=40, seed=3)
    (whole,) = generate(model, ["hello"], tokenizer, sampling)
    stop = whole.text[5:7]
    (stopped,) = generate(model, ["hello"], tokenizer, Sampling(max_tokens=40, seed=3, stop=(stop,)))
    assert stopped.text == whole.text[: whole.text.find(stop)]
    assert stopped.finish_reason == "stop"


def test_a_tokenizer_that_is_not_byte_level_is_enough_without_stop_strings(
    model: Decoder, tokenizer: Tokenizer
) -> None:
    expected = generate(model, ["hello"], tokenizer, Sampling(seed=1))[0].tokens
    tokenizer.decoder = decoders.Fuse()
    (found,) = generate(model, ["hello"], tokenizer, Sampling(seed=1))
    assert (found.tokens, found.text) == (expected, tokenizer.decode(expected))
    with pytest.raises(ArtifactError, match="not byte-level"):
        generate(model, ["hello"], tokenizer, Sampling(stop=("a",)))


def test_prompts_that_do_not_fit_are_refused_before_anything_runs(model: Decoder, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="prompt 1 has 60 tokens, which with max_tokens=5 exceed the model's context"):
        generate(model, ["a", [5] * 60], tokenizer, Sampling(max_tokens=5))
    with pytest.raises(ValueError, match="prompt 0 has no tokens"):
        generate(model, [[]], tokenizer, Sampling())
    assert generate(model, [], tokenizer, Sampling()) == []


def test_a_broken_model_is_one_clear_error(tokenizer: Tokenizer) -> None:
    broken = small_model(small_config(vocab_size=260))
    with torch.no_grad():
        broken.get_parameter("ln_f.bias").fill_(torch.nan)
    with pytest.raises(StageError, match="the generation for prompt 0 failed"):
        generate(broken, ["a"], tokenizer, Sampling())


def test_progress_counts_the_sequences_and_can_stop_the_generation(model: Decoder, tokenizer: Tokenizer) -> None:
    seen: list[tuple[int, int]] = []
    generate(model, ["a", "b", "c"], tokenizer, Sampling(), progress=lambda *values: seen.append(values))
    assert (seen[0], seen[-1]) == ((0, 3), (3, 3))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, ["a"], tokenizer, Sampling(), progress=stop)


def test_offline_generation_needs_no_server() -> None:
    code = "import sys, stages.inference.generate; print([m for m in sys.modules if m.split('.')[0] in NAMES])"
    names = "NAMES = ['prometheus_client', 'fastapi', 'uvicorn', 'starlette']; "
    done = subprocess.run([sys.executable, "-c", names + code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
