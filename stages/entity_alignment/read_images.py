"""Reads a folder of images as features: colours and gradients in a grid of cells, by a fixed, untrained description.

The name of a file without its ending is the id of its entity, with characters that a file name can't hold written as in
a URL (%2F). The description is that of histograms of oriented gradients (Dalal and Triggs 2005) next to mean colours.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import numpy as np

from stages.base import StageError
from stages.entity_alignment.feature_files import image_files
from stages.entity_alignment.graphs import Array, Floats

SIDE, CELLS, ORIENTATIONS = 48, 4, 8  # pixels, cells a side, bins over half a turn
PIXEL_LIMIT = 64 << 20


def read_images(folder: Path) -> tuple[Array, list[str]]:
    """The description of each image [images, 176], and the ids of their entities. Raises StageError."""
    files = image_files(folder)
    return np.stack([describe(pixels(path, SIDE)) for path in files]), [unquote(path.stem) for path in files]


def describe(pixels: Floats) -> Floats:
    """The features of an image [48, 48, 3], values from 0 to 1: mean colours and oriented gradients of 4 x 4 cells."""
    size = SIDE // CELLS
    colours = pixels.reshape(CELLS, size, CELLS, size, 3).mean(axis=(1, 3))
    rows, columns = np.gradient(pixels.mean(axis=2))
    strength = np.hypot(rows, columns)
    orientation = ((np.arctan2(rows, columns) % np.pi) / np.pi * ORIENTATIONS).astype(int) % ORIENTATIONS
    gradients = np.zeros((CELLS, CELLS, ORIENTATIONS), np.float32)
    cell = np.arange(SIDE) // size
    np.add.at(gradients, (cell[:, None], cell[None, :], orientation), strength)
    gradients /= np.linalg.norm(gradients) + 1e-6
    return np.concatenate([colours.flatten(), gradients.flatten()]).astype(np.float32)


def pixels(path: Path, side: int) -> Floats:
    """An image on white, scaled to a square: [side, side, 3], values from 0 to 1. Raises StageError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise StageError(f"{path} has more than {PIXEL_LIMIT} pixels")
            coloured = image.convert("RGBA").resize((side, side))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StageError(f"{path} is not an image that can be read: {error}") from None
    background = Image.new("RGBA", coloured.size, "white")
    values: Floats = np.asarray(Image.alpha_composite(background, coloured).convert("RGB"), np.float32)
    return values / np.float32(255)
