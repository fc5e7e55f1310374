"""One definition of what a scheme quantizes: the layers of the model, its files and the forecast agree with it."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from stages.model.config import DecoderConfig, ExpertsConfig, QuantizationName
from stages.model.decoder_weights import converted, expected_tensors
from stages.model.parameters import parameters
from stages.model.quantization_schemes import SCHEMES, scale_name, stored_tensors
from stages.quantization.state_dict import QUANTIZERS, quantize_state_dict
from tests.stages.model.models import SHAPES, shaped, small_model

EXPERTS = ExpertsConfig(per_layer=(0, 4), top_k=2, residual=True)
CONFIGS = [
    shaped(shape, experts=experts, quantization=quantization)
    for shape in SHAPES
    for experts in (None, EXPERTS)
    for quantization in (None, *get_args(QuantizationName))
]


def test_every_name_has_a_scheme_and_a_quantizer() -> None:
    assert set(get_args(QuantizationName)) == set(SCHEMES) == set(QUANTIZERS)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_stored_tensors_are_those_of_the_model(config: DecoderConfig) -> None:
    stored, real = stored_tensors(config), expected_tensors(config)
    assert {name: (tensor.shape, tensor.element_bytes) for name, tensor in stored.items()} == {
        name: (tuple(tensor.shape), tensor.dtype.itemsize) for name, tensor in real.items()
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_quantizes_large_matrices_only(shape: str) -> None:
    config = shaped(shape, experts=EXPERTS)
    quantized = {name for name, one in parameters(config).items() if SCHEMES["int8"].quantizes(one)}
    routers = {f"blocks.1.mlp.{part}.weight" for part in ("gate", "coefficient")}
    matrices = {name for name, one in parameters(config).items() if name.endswith("weight") and len(one.shape) > 1}
    assert quantized == matrices - routers - {"position_embeddings.weight"}
    assert ("blocks.0.mlp.dense_gate.weight" in quantized) == config.gated


def test_another_type_leaves_quantized_tensors_as_they_are() -> None:
    state, config = quantize_state_dict(small_model().state_dict(), small_model().config, "int8")
    half = converted(state, config, torch.bfloat16)
    weight = "blocks.0.mlp.dense_h_to_4h.weight"
    assert half[weight].dtype == torch.int8
    assert half[scale_name(weight)].dtype == torch.float32
    assert half["blocks.0.mlp.dense_h_to_4h.bias"].dtype == torch.bfloat16
    assert half["ln_f.weight"].dtype == torch.bfloat16
