"""Describes images with a frozen encoder of the user's: a local folder in the layout of Hugging Face.

The vector of an image is the mean of the encoder's last hidden states over its patches or cells. Poolers are not used:
a checkpoint of a classifier often has none, and a new one would be random. Images are scaled to the size that the
encoder was made for, without a crop, and normalised by the mean and the deviation of preprocessor_config.json (0.5
where there is none).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
from pydantic import ValidationError

from stages.base import Config, StageError
from stages.entity_alignment.feature_files import ENCODER_CONFIG, ENCODER_WEIGHTS, PREPROCESSOR, image_files
from stages.entity_alignment.graphs import Array, Floats
from stages.entity_alignment.read_images import pixels

if TYPE_CHECKING:
    from torch import nn

BATCH = 16  # images that are in memory at once
LARGEST_SIDE = 2048  # pixels of an image, as the encoder sees it
JSON_LIMIT_BYTES = 1 << 20
UNUSED = ("pooler", "classifier", "head")  # parts of a model whose weights the mean of its hidden states does not need


class Preprocessing(Config):
    """How the encoder wants the values of the three colours, which are in 0 to 1."""

    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def encode_images(folder: Path, encoder: Path) -> tuple[Array, list[str]]:
    """The vector of each image [images, width], and the ids of their entities. Raises StageError."""
    import torch

    model, side, preprocessing = _model(encoder), _side(encoder), _preprocessing(encoder)
    mean, deviation = (np.array(one, np.float32) for one in (preprocessing.image_mean, preprocessing.image_std))
    files, parts = image_files(folder), []
    for start in range(0, len(files), BATCH):
        images: Floats = np.stack([pixels(path, side) for path in files[start : start + BATCH]])
        values = torch.from_numpy((images - mean) / deviation).permute(0, 3, 1, 2)
        with torch.inference_mode():
            states = model(pixel_values=values).last_hidden_state
        # [images, tokens, width] of a transformer, [images, width, rows, columns] of a convolutional network
        parts.append((states.mean(dim=1) if states.ndim == 3 else states.mean(dim=(2, 3))).numpy())
    return np.concatenate(parts), [unquote(path.stem) for path in files]


def _model(encoder: Path) -> nn.Module:
    try:
        from transformers import AutoModel
        from transformers.utils import logging
    except ImportError:
        raise StageError(
            "features.image.encoder needs transformers; install it with pip install 'bloomline[image_encoder]'"
        ) from None
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, loaded = AutoModel.from_pretrained(
            encoder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
            dtype="float32",
        )  # fmt: skip
    except Exception as error:  # whatever transformers raises for what it does not know, or can't read
        raise StageError(f"{encoder}: transformers can't load it as a model: {error}") from None
    if model.main_input_name != "pixel_values":
        raise StageError(
            f"{encoder}: its model, {type(model).__name__}, reads {model.main_input_name} and not images; expected an "
            "image encoder, such as a ViT or a ResNet"
        )
    if missing := sorted(name for name in loaded["missing_keys"] if name.split(".")[0] not in UNUSED):
        raise StageError(
            f"{encoder / ENCODER_WEIGHTS}: lacks {len(missing)} of the model's tensors, such as {missing[0]}"
        )
    frozen: nn.Module = model.eval().requires_grad_(False)
    return frozen


def _side(encoder: Path) -> int:
    """The pixels of a side of the images that the encoder was made for: 224 where its configuration does not say it."""
    side = _json(encoder / ENCODER_CONFIG).get("image_size", 224)
    side = side[0] if isinstance(side, list) and side else side
    if not isinstance(side, int) or not 1 <= side <= LARGEST_SIDE:
        raise StageError(f"{encoder / ENCODER_CONFIG}: image_size is {side!r}; expected 1 to {LARGEST_SIDE} pixels")
    return side


def _preprocessing(encoder: Path) -> Preprocessing:
    path = encoder / PREPROCESSOR
    found = _json(path) if path.is_file() else {}
    try:
        result = Preprocessing(**{name: found[name] for name in Preprocessing.model_fields if name in found})
    except ValidationError:
        result = None
    if result is None or min(result.image_std) <= 0:
        raise StageError(f"{path}: expected three numbers in image_mean, and three above 0 in image_std")
    return result


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(JSON_LIMIT_BYTES))
    except (OSError, ValueError) as error:
        raise StageError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise StageError(f"{path}: expected a JSON object")
    return found
