"""The directory of a model in the Hugging Face format: its files and how they are opened. Nothing in it is executed.

config.json                                          the architecture
model.safetensors, or model.safetensors.index.json   the tensors in one file, or the index of several files
tokenizer.json                                       the tokenizer
generation_config.json                               how a text is generated: its end tokens; optional
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import StageError

if TYPE_CHECKING:
    from stages.model.safetensors_files import TensorFiles

CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
GENERATION = "generation_config.json"
CONFIG_LIMIT_BYTES, INDEX_LIMIT_BYTES = 1 << 20, 64 << 20


def read_json(path: Path, limit_bytes: int) -> dict[str, Any]:
    """Read a JSON object. Raises StageError if the file is missing, too large or holds anything else, or if one of its
    objects has a key twice: readers of JSON disagree on which of the values counts."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise StageError(f"{path} has {', '.join(twice)} twice: remove the wrong one")
        return found

    try:
        if path.stat().st_size > limit_bytes:
            raise StageError(f"{path} is larger than {limit_bytes} bytes: not a model's {path.name}")
        values = json.loads(path.read_bytes(), object_pairs_hook=unique)
    except OSError as error:
        raise StageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise StageError(f"{path} is not JSON") from None
    if not isinstance(values, dict):
        raise StageError(f"{path} does not hold a JSON object")
    return values


def weight_map(directory: Path) -> Mapping[str, str] | None:
    """The file of each tensor by the index; None if there is no index. Raises StageError if the index is not valid."""
    if not (directory / INDEX).is_file():
        return None
    found = read_json(directory / INDEX, INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise StageError(f"{directory / INDEX} has no weight_map")
    for name, file in found.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise StageError(
                f"{directory / INDEX}: {name} is in {file!r}, which is not a safetensors file in the same directory"
            )
    return found


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the tensors, in order. Raises StageError if there are none or only pickled ones."""
    placed = weight_map(directory)
    if placed is not None:
        return [directory / name for name in sorted(set(placed.values()))]
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if any(directory.glob("*.bin")) or any(directory.glob("*.pt")) or any(directory.glob("*.pth")):
        raise StageError(
            f"{directory} has its weights only in pickled files, which can run any code when they are opened: they "
            "are not read. Use the safetensors files of the model, or convert it on a machine where you trust it: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(directory, safe_serialization=True)"
        )
    raise StageError(f"{directory} has neither {WEIGHTS} nor {INDEX}; expected a model in the Hugging Face format")


def open_tensors(directory: Path) -> TensorFiles:
    """The tensors of the model. Raises StageError if a file is missing, damaged or disagrees with the index."""
    from stages.model.safetensors_files import TensorFiles

    files = TensorFiles(weight_files(directory))
    placed = weight_map(directory)
    found = {name: path.name for name, path in files.paths.items()}
    if placed is not None and found != dict(placed):
        wrong = sorted(set(found.items()) ^ set(placed.items()))
        raise StageError(f"{directory / INDEX} and the files disagree on {', '.join(name for name, _ in wrong[:5])}")
    return files
