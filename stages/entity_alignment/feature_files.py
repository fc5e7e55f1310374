"""Which files hold the dense features of entities."""

from __future__ import annotations

from pathlib import Path

from stages.base import StageError

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
