"""Which files hold the dense features of entities."""

from __future__ import annotations

from pathlib import Path

from stages.base import StageError

ENDINGS = (".npy", ".npz", ".safetensors")  # of vectors
ENCODER_CONFIG, ENCODER_WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


def id_list(path: Path) -> Path:
    """Where the ids of a .npy or .safetensors file are."""
    return path.with_suffix(".ids.txt")


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name. Raises StageError if there are none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    if not found:
        raise StageError(f"{folder} holds no images: expected files that end with {', '.join(IMAGES)}")
    return found


def encoder_files(folder: Path) -> list[Path]:
    """The files of an image encoder: its configuration, its weights, and how its images are prepared, if it says so.

    Raises StageError if it has no configuration or no weights in safetensors.
    """
    required = [folder / ENCODER_CONFIG, folder / ENCODER_WEIGHTS]
    missing = [path.name for path in required if not path.is_file()]
    if not missing:
        return [*required, *(path for path in [folder / PREPROCESSOR] if path.is_file())]
    kind = "a folder" if folder.is_dir() else "a folder, and it is none" if folder.exists() else "a folder that exists"
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES) if folder.is_dir() else []
    hint = f"; {pickles[0]} is a pickle, which is not read: save the model in safetensors" if pickles else ""
    raise StageError(
        f"{folder}: expected {kind} with {ENCODER_CONFIG} and {ENCODER_WEIGHTS}; it lacks {' and '.join(missing)}{hint}"
    )
