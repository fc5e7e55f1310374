"""Small models in Hugging Face's format, and helpers that change them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from stages.artifacts.checkpoint import Checkpoint
from stages.huggingface.export_model import ExportModel
from stages.huggingface.huggingface_model import HuggingFaceModel
from stages.huggingface.import_model import ImportModel
from tests.stages.model.models import byte_tokenizer, shaped, small_model
from tests.support import run_stage


def checkpoint(path: Path, shape: str = "bloom", dtype: torch.dtype = torch.float32, **changes: Any) -> Checkpoint:
    model = small_model(shaped(shape, **changes))
    state = {name: value.to(dtype) for name, value in model.state_dict().items()}
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer(path / "bytes.json")
    return Checkpoint.save(path / "model", state, model.config, tokenizer, {"steps": 3, "training_loss": 1.5})


def exported(path: Path, model: Checkpoint, **fields: Any) -> HuggingFaceModel:
    made: HuggingFaceModel
    made, _ = run_stage(ExportModel(model="model", **({"license": "mit"} | fields)), {"model": model}, path)
    return made


def imported(path: Path, source: Path) -> Checkpoint:
    made: Checkpoint
    made, _ = run_stage(ImportModel(source={"path": str(source)}), {}, path)
    return made


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """The same tensors in the same types, bit for bit."""
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and torch.equal(value, other[name]) for name, value in one.items()
    )


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in directory.glob("*.safetensors") for name, value in load_file(path).items()}


def alter(path: Path, without: tuple[str, ...] = (), **changes: Any) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if name not in without}))


def add_tensors(directory: Path, tensors: dict[str, torch.Tensor], without: tuple[str, ...] = ()) -> None:
    kept = {name: value.clone() for name, value in weights_of(directory).items() if name not in without}
    save_file(kept | tensors, directory / "model.safetensors", {"format": "pt"})
