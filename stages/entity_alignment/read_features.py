"""Reads dense features of entities: .npy or .safetensors with a list of ids, .npz with both, or a folder of images.

Pickles are refused, and so is a value that is not finite. The list has one id a line, in the order of the rows; its
name is that of the features with the ending .ids.txt.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stages.base import StageError
from stages.entity_alignment.feature_files import id_list
from stages.entity_alignment.graphs import Array, Floats, Vectors
from stages.entity_alignment.problems import Problems
from stages.entity_alignment.read_files import lines
from stages.entity_alignment.read_images import read_images
from stages.entity_alignment.sources import ImageEncoder

LARGEST = 1e15  # so that the length of a vector is finite in float32
TENSOR, IDS = "vectors", "ids"


def read_features(
    path: Path, encoder: ImageEncoder | None, entities: Mapping[str, int], first: int, problems: Problems
) -> Vectors:
    """The vectors of the entities of one graph, whose ids begin at `first` in the merged space.

    `encoder` describes the images of a folder. Raises StageError.
    """
    table, names = _images(path, encoder) if path.is_dir() or encoder is not None else _load(path)
    if table.ndim != 2 or table.dtype.kind not in "fiu" or not table.shape[1]:
        raise StageError(f"{path}: expected numbers [entities, dimensions], not {table.dtype} {table.shape}")
    if len(names) != len(table):
        raise StageError(f"{path}: {len(table)} rows, but {len(names)} ids")
    with np.errstate(over="ignore"):
        values: Floats = table.astype(np.float32)
    finite = np.asarray((np.abs(values) <= LARGEST).all(axis=1))
    for row in np.flatnonzero(~finite).tolist():
        message = f"the vector of {names[row]!r} has a value that is not a number from -{LARGEST:g} to {LARGEST:g}"
        problems.add("features that are not finite", path, row + 1, message)
    kept: dict[int, int] = {}
    for row, name in enumerate(names):
        if name not in entities:
            problems.add("features of an unknown entity", path, row + 1, f"no entity has the id {name!r}")
        elif entities[name] + first in kept:
            problems.add("duplicate features", path, row + 1, f"{name!r} has features already")
        elif finite[row]:
            kept[entities[name] + first] = row
    if not kept:
        if finite.any() or not len(names):
            raise StageError(
                f"{path}: none of its {len(names)} ids is an entity of the graph; expected the graph's own ids"
            )
        raise StageError(f"{path}: none of its {len(names)} vectors has numbers within -{LARGEST:g} to {LARGEST:g}")
    order = sorted(kept)
    return Vectors(np.array(order, np.int64), values[[kept[entity] for entity in order]])


def _images(folder: Path, encoder: ImageEncoder | None) -> tuple[Array, list[str]]:
    if encoder is None:
        return read_images(folder)
    if not folder.is_dir():
        raise StageError(f"{folder}: with an encoder, expected a folder of images")
    from stages.entity_alignment.image_encoder import encode_images

    return encode_images(folder, encoder.path)


def _load(path: Path) -> tuple[Array, list[str]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                if not {TENSOR, IDS} <= set(archive.files):
                    raise StageError(f"{path}: has {archive.files}; expected the arrays {TENSOR!r} and {IDS!r}")
                return archive[TENSOR], [str(name) for name in archive[IDS]]
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False, mmap_mode="r")
        else:
            tensors = load_file(path)
            if TENSOR not in tensors:
                raise StageError(f"{path}: has the tensors {sorted(tensors)}; expected {TENSOR!r}")
            values = tensors[TENSOR]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise StageError(f"{path} cannot be read: {error}; pickled objects are refused") from None
    return values, [name for _, name in lines(id_list(path))]


def together(parts: list[Vectors], modality: str) -> Vectors:
    """The features of both graphs in one table. Raises StageError if they have different dimensions."""
    left, right = (part.values.shape[1] for part in parts)
    if left != right:
        raise StageError(f"features.{modality}: {left} dimensions on the left, {right} on the right; expected as many")
    return Vectors(np.concatenate([part.entities for part in parts]), np.concatenate([part.values for part in parts]))
