from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from stages.model.config import DecoderConfig, ExpertsConfig
from stages.model.decoder import Decoder
from stages.model.decoder_weights import expected_tensors
from stages.model.parameters import active_parameter_count, parameter_count, parameter_shapes

CONF = Path(__file__).parents[3] / "conf" / "model"
PUBLISHED = {
    # "BLOOM" (arXiv 2211.05100) and the released checkpoints
    "bloom_560m": 559_214_592,
    "bloom_1b1": 1_065_314_304,
    "bloom_1b7": 1_722_408_960,
    "bloom_3b": 3_002_557_440,
    "bloom_7b1": 7_069_016_064,
    "bloom_176b": 176_247_271_424,
    # The released checkpoints
    "opt_125m": 125_239_296,
    "opt_1b3": 1_315_758_080,
    "tinyllama_1b1": 1_100_048_384,
    "llama2_7b": 6_738_415_616,
    "llama3_2_1b": 1_235_814_400,
}
ROUNDED = {
    "palm_8b": 8.63,
    "palm_62b": 62.50,
    "palm_540b": 540.35,
}  # billions; arXiv 2204.02311, table 1, rounds or truncates


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes(size: str) -> None:
    config = DecoderConfig.model_validate(OmegaConf.to_container(OmegaConf.load(CONF / f"{size}.yaml")))
    assert parameter_count(config) == active_parameter_count(config) == PUBLISHED[size]
    tensors = expected_tensors(config)
    assert sum(tensor.numel() for tensor in tensors.values()) == PUBLISHED[size]
    assert all(tensor.is_meta for tensor in tensors.values())


@pytest.mark.parametrize("size", ROUNDED)
def test_published_sizes_of_palm(size: str) -> None:
    config = DecoderConfig.model_validate(OmegaConf.to_container(OmegaConf.load(CONF / f"{size}.yaml")))
    assert parameter_count(config) / 1e9 == pytest.approx(ROUNDED[size], abs=0.01)


@given(st.data())
@settings(max_examples=40)
def test_shapes_are_those_of_the_model(data: st.DataObject) -> None:
    """For all combinations: names, order and shapes of all parameters, and of a quantized model's tensors."""
    experts = ExpertsConfig(per_layer=(0, 3), top_k=2, residual=data.draw(st.booleans()), feed_forward_size=20)
    config = DecoderConfig(
        vocab_size=50,
        hidden_size=24,
        layers=2,
        heads=6,
        key_value_heads=data.draw(st.sampled_from([None, 1, 2, 3, 6])),
        attention_head_size=data.draw(st.sampled_from([None, 2, 10])),
        feed_forward_size=data.draw(st.sampled_from([None, 7])),
        feed_forward=data.draw(st.sampled_from(["gelu_tanh", "relu", "swiglu"])),
        position=data.draw(st.sampled_from(["alibi", "learned", "rotary"])),
        normalisation=data.draw(st.sampled_from(["layer", "rms"])),
        embedding_norm=data.draw(st.booleans()),
        parallel_blocks=data.draw(st.booleans()),
        biases=data.draw(st.booleans()),
        tied_head=data.draw(st.booleans()),
        context_length=16,
        experts=data.draw(st.sampled_from([None, experts])),
    )
    shapes = parameter_shapes(config)
    with torch.device("meta"):
        model = Decoder(config)
    assert [(name, tuple(p.shape)) for name, p in model.named_parameters()] == list(shapes.items())
    assert parameter_count(config) == sum(parameter.numel() for parameter in model.parameters())
    quantized = expected_tensors(config.model_copy(update={"quantization": "int8"}))
    assert {name: tuple(tensor.shape) for name, tensor in quantized.items() if not name.endswith("scale")} == shapes
    matrices = {name for name, tensor in quantized.items() if tensor.dtype == torch.int8}
    assert {name.removesuffix("weight") + "scale" for name in matrices} == set(quantized) - set(shapes)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_configured_sizes_are_models(path: Path) -> None:
    DecoderConfig.model_validate(OmegaConf.to_container(OmegaConf.load(path)))


@pytest.mark.parametrize(
    ("layers", "hidden", "counts", "residual", "billions"),
    [  # DeepSpeed-MoE (arXiv 2201.05596), with experts in every other layer and 51,200 words
        (24, 1024, [0, 128] * 12, False, 13.15),
        (24, 2048, [0, 128] * 12, False, 52.47),
        (24, 1024, [0, 32] * 10 + [0, 64] * 2, True, 4.118),
        (24, 2048, [0, 64] * 10 + [0, 128] * 2, True, 31.39),
        (58, 8192, [0, 128] * 29, False, 2024.2),
    ],
)
def test_parameters_of_published_mixtures(
    layers: int, hidden: int, counts: list[int], residual: bool, billions: float
) -> None:
    experts = ExpertsConfig(per_layer=tuple(counts), residual=residual)
    config = DecoderConfig(vocab_size=51_200, hidden_size=hidden, layers=layers, heads=16, experts=experts)
    assert parameter_count(config) / 1e9 == pytest.approx(billions, rel=1e-3)
    assert active_parameter_count(config) < parameter_count(config) / 2


def test_json_round_trip() -> None:
    experts = ExpertsConfig(per_layer=(0, 4), top_k=2, residual=True)
    config = DecoderConfig(vocab_size=300, hidden_size=48, layers=2, heads=6, experts=experts, quantization="int8")
    assert DecoderConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 7}, "not a multiple of heads 7"),
        ({"layers": 0}, "layers"),
        ({"key_value_heads": 4}, "not a multiple of key_value_heads 4"),
        ({"attention_head_size": 7, "position": "rotary"}, "needs an even head size, but a head has 7"),
        ({"position_offset": 2}, "position_offset needs position: learned"),
        ({"rotary_base": 5e5}, "rotary_base needs position: rotary"),
        ({"position": "rotary", "rotary_scaling": {"kind": "yarn", "factor": 2}}, "'linear' or 'llama3'"),
        (
            {"position": "rotary", "rotary_scaling": {"kind": "llama3", "factor": 2, "low_frequency_factor": 4}},
            "must be below",
        ),
        ({"hiden_size": 4}, "hiden_size"),
        ({"experts": {"per_layer": [0, 0]}}, "no layer with experts"),
        ({"experts": {"per_layer": [4]}}, "lists 1 layers, but the model has 2"),
        ({"experts": {"per_layer": [0, 4], "top_k": 5}}, "only 4 experts"),
    ],
)
def test_refuses_what_no_model_can_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DecoderConfig.model_validate({"vocab_size": 300, "hidden_size": 48, "layers": 2, "heads": 6} | changes)


def test_planning_needs_no_torch() -> None:
    code = "import sys, stages.model.config, stages.artifacts.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
