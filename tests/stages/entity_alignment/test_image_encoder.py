"""Images described by an encoder of the user's: tiny models with random weights, made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stages.base import StageError
from stages.entity_alignment.image_encoder import encode_images
from stages.entity_alignment.make_pair import MakeGraphPair
from stages.entity_alignment.sources import ImageEncoder
from tests.stages.entity_alignment.graph_files import dbp15k
from tests.support import run_stage

transformers = pytest.importorskip("transformers")


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    folders = {"left": tmp_path / "left", "right": tmp_path / "right"}
    for side, first in (("left", 0), ("right", 6)):
        folders[side].mkdir()
        for place, colour in enumerate(("red", "blue")):
            Image.new("RGB", (20, 30), colour).save(folders[side] / f"{first + place}.png")
    return folders


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def vit(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    return saved(transformers.ViTForImageClassification(config), folder)  # without a pooler


def test_a_transformer_describes_the_images_of_a_pair(images: dict[str, Path], tmp_path: Path) -> None:
    encoder = vit(tmp_path / "vit")
    (encoder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.25]}')
    features = {"image": {**images, "encoder": str(encoder)}}
    fields = {"folder": dbp15k(tmp_path / "zh"), "features": features, "train_share": 0.5}
    artifact, _ = run_stage(MakeGraphPair.model_validate(fields), {}, tmp_path / "run", draw=False)
    vectors = artifact.load().vectors["image"]
    assert vectors.entities.tolist() == [0, 1, 6, 7]
    np.testing.assert_array_equal(vectors.values[:2], vectors.values[2:])
    model = transformers.ViTModel.from_pretrained(encoder).eval()
    red = (torch.tensor([1.0, 0, 0]) - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.5, 0.25])
    with torch.inference_mode():
        states = model(pixel_values=red[None, :, None, None].expand(1, 3, 16, 16)).last_hidden_state
    np.testing.assert_allclose(vectors.values[0], states[0].mean(dim=0).numpy(), atol=1e-5)


def test_a_convolutional_network(images: dict[str, Path], tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    vectors, names = encode_images(images["left"], saved(transformers.ResNetModel(config), tmp_path / "resnet"))
    assert vectors.shape == (2, 6)
    assert names == ["0", "1"]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_a_model_of_texts_is_refused(images: dict[str, Path], tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    with pytest.raises(StageError, match="BertModel, reads input_ids and not images; expected an image encoder"):
        encode_images(images["left"], saved(transformers.BertModel(config), tmp_path / "bert"))


def test_weights_that_are_missing_are_not_made_up(images: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = vit(tmp_path / "vit") / "model.safetensors"
    tensors = load_file(path)
    removed = next(name for name in tensors if "layer.0" in name)
    save_file({name: value for name, value in tensors.items() if name != removed}, path, {"format": "pt"})
    with pytest.raises(StageError, match=r"model\.safetensors: lacks 1 of the model's tensors"):
        encode_images(images["left"], tmp_path / "vit")


def test_a_configuration_that_makes_nothing_is_refused(images: dict[str, Path], tmp_path: Path) -> None:
    encoder = vit(tmp_path / "vit")
    (encoder / "config.json").write_text('{"model_type": "vit", "hidden_size": 12, "num_attention_heads": 5}')
    with pytest.raises(StageError, match="transformers can't load it as a model"):
        encode_images(images["left"], encoder)


def test_folders_without_safetensors_are_refused_before_anything_runs(tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        return ImageEncoder(path=path).digest(lambda _: "")

    folder = tmp_path / "model"
    with pytest.raises(StageError, match=r"expected a folder that exists with config\.json and model\.safetensors"):
        digest(folder)
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        StageError, match=r"lacks model\.safetensors; pytorch_model\.bin is a pickle, which is not read"
    ):
        digest(folder)
    with pytest.raises(StageError, match="expected a folder, and it is none"):
        digest(folder / "pytorch_model.bin")


def test_an_encoder_needs_a_folder_of_images(tmp_path: Path) -> None:
    np.save(tmp_path / "left.npy", np.ones((1, 2)))
    file = str(tmp_path / "left.npy")
    features = {"image": {"left": file, "right": file, "encoder": str(vit(tmp_path / "vit"))}}
    stage = MakeGraphPair.model_validate({"folder": dbp15k(tmp_path / "zh"), "features": features, "train_share": 0.5})
    with pytest.raises(StageError, match="with an encoder, expected a folder of images"):
        run_stage(stage, {}, tmp_path / "run", draw=False)
