"""The memory forecast that plans block runs by, compared with the memory that tensors and processes really take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.checkpoint import Checkpoint
from stages.model.cache import KeyValueCache
from stages.model.config import DecoderConfig, ExpertsConfig
from stages.model.footprint import cache_bytes, forward_bytes, weight_bytes
from stages.quantization.state_dict import quantize_state_dict
from tests.stages.model import forward_peak
from tests.stages.model.models import SHAPES, byte_tokenizer, shaped, small_model

EXPERTS = ExpertsConfig(per_layer=(0, 4), top_k=2)
RESIDUAL = ExpertsConfig(per_layer=(3, 4), residual=True, feed_forward_size=32)
MODELS = {
    **{shape: shaped(shape) for shape in SHAPES},
    "experts": shaped("bloom", experts=EXPERTS),
    "residual": shaped("bloom", experts=RESIDUAL),
    "palm experts": shaped("palm", experts=EXPERTS),
}


@pytest.mark.parametrize("quantized", [False, True], ids=["floating point", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_weight_bytes_are_those_of_a_loaded_model(name: str, quantized: bool, tmp_path: Path) -> None:
    model = small_model(MODELS[name])
    state, config = {key: value.bfloat16() for key, value in model.state_dict().items()}, model.config
    if quantized:
        state, config = quantize_state_dict(model.state_dict(), config, "int8")
    saved = Checkpoint.save(tmp_path, state, config, byte_tokenizer(tmp_path / "t.json"), {})
    loaded = saved.load()
    tensors = [*loaded.parameters(), *loaded.buffers()]
    assert weight_bytes(config) == sum(tensor.nbytes for tensor in tensors)
    assert weight_bytes(config) == sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize("name", MODELS)
def test_cache_bytes_are_those_of_a_cache(name: str) -> None:
    config = MODELS[name]
    assert cache_bytes(config, 3) == KeyValueCache(config, 3).nbytes


LARGE: dict[str, Any] = {"vocab_size": 8000, "hidden_size": 512, "layers": 2, "heads": 8, "context_length": 1024}
WIDE_VOCABULARY = {"vocab_size": 60_000, "hidden_size": 256}
MEASURED: dict[str, tuple[dict[str, Any], int, int]] = {  # fields, samples, tokens of a sample
    "bloom": ({}, 4, 512),
    "bloom long": ({"vocab_size": 1000}, 1, 1024),
    "bloom wide": (WIDE_VOCABULARY, 4, 256),
    "opt": (SHAPES["opt"], 8, 256),
    "llama": (SHAPES["llama"] | {"feed_forward_size": None}, 4, 512),
    "palm": (SHAPES["palm"] | {"attention_head_size": None, "vocab_size": 300, "hidden_size": 1024}, 8, 512),
    "experts": ({"experts": EXPERTS}, 4, 512),
    "fine experts": ({"experts": {"per_layer": [0, 16], "top_k": 4, "feed_forward_size": 512}}, 4, 512),
    "int8 wide": ({"quantization": "int8"} | WIDE_VOCABULARY, 4, 256),
    "int8 experts": ({"quantization": "int8", "experts": EXPERTS}, 4, 512),
}
MARGIN = 3.0  # the largest factor by which the forecast may exceed the measured peak


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory of a process from /proc")
@pytest.mark.parametrize("name", MEASURED)
def test_forward_bytes_bound_the_peak_of_a_process(name: str) -> None:
    fields, samples, length = MEASURED[name]
    config = DecoderConfig(**(LARGE | fields))
    command = [sys.executable, "-m", forward_peak.__name__, config.model_dump_json(), str(samples), str(length)]
    # Without the setting, glibc keeps freed tensors in its heap, by an amount that depends on the timing of threads.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    assert peak > 32 << 20  # enough that the noise of a process does not matter
    assert peak <= forward_bytes(config, samples, length) <= MARGIN * peak


def test_a_forecast_needs_no_torch() -> None:
    code = "import sys, stages.model.footprint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
