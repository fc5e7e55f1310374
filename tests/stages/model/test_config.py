from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError

from stages.model.config import DecoderConfig, ExpertsConfig
from stages.model.weights import expected_tensors

CONF = Path(__file__).parents[3] / "conf" / "model"
PUBLISHED = {  # "BLOOM" (arXiv 2211.05100) and the released checkpoints
    "560m": 559_214_592,
    "1b1": 1_065_314_304,
    "1b7": 1_722_408_960,
    "3b": 3_002_557_440,
    "7b1": 7_069_016_064,
    "176b": 176_247_271_424,
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes(size: str) -> None:
    config = DecoderConfig.model_validate(OmegaConf.to_container(OmegaConf.load(CONF / f"bloom_{size}.yaml")))
    assert config.parameters == config.active_parameters == PUBLISHED[size]
    tensors = expected_tensors(config)
    assert sum(tensor.numel() for tensor in tensors.values()) == PUBLISHED[size]
    assert all(tensor.is_meta for tensor in tensors.values())


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
    assert config.parameters / 1e9 == pytest.approx(billions, rel=1e-3)
    assert config.active_parameters < config.parameters / 2


def test_json_round_trip() -> None:
    experts = ExpertsConfig(per_layer=(0, 4), top_k=2, residual=True)
    config = DecoderConfig(vocab_size=300, hidden_size=48, layers=2, heads=6, experts=experts, quantization="int8")
    assert DecoderConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 7}, "not a multiple of heads 7"),
        ({"layers": 0}, "layers"),
        ({"hiden_size": 4}, "hiden_size"),
        ({"experts": {"per_layer": [0, 0]}}, "no layer with experts"),
        ({"experts": {"per_layer": [4]}}, "names 1 layers, the model has 2"),
        ({"experts": {"per_layer": [0, 4], "top_k": 5}}, "only 4 experts"),
    ],
)
def test_refuses_what_no_model_can_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DecoderConfig.model_validate({"vocab_size": 300, "hidden_size": 48, "layers": 2, "heads": 6} | changes)


def test_planning_needs_no_torch() -> None:
    code = "import sys, stages.model.config, stages.artifacts.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
