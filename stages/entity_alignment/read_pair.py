"""Reads a pair of graphs from a folder in a benchmark's layout, or from separate files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stages.base import StageError
from stages.entity_alignment.graphs import SPLITS, Graph, Ints, Pair, Split, Vectors, merged
from stages.entity_alignment.problems import Problems
from stages.entity_alignment.read_features import read_features, together
from stages.entity_alignment.read_files import (
    label_of,
    read_attributes,
    read_ids,
    read_links,
    read_names,
    read_triples,
)
from stages.entity_alignment.settings import Dense
from stages.entity_alignment.sources import OPENEA_SPLITS, Features, GraphFile, LinkFile, PairFolder


def read_folder(folder: PairFolder, features: Mapping[Dense, Features], problems: Problems) -> tuple[Pair, Ints | None]:
    """The pair in a folder, and the split of each link where the folder gives one."""
    return _dbp15k(folder, features, problems) if folder.layout == "dbp15k" else _openea(folder, features, problems)


def read_files(
    sides: tuple[GraphFile, GraphFile],
    seeds: LinkFile,
    test: LinkFile | None,
    features: Mapping[Dense, Features],
    problems: Problems,
) -> tuple[Pair, Ints | None]:
    """The pair of two graph files. With test links, all of `seeds` are training links."""
    graphs = []
    for file in sides:
        graph = Graph()
        read_triples(file.path, graph, problems)
        if file.attributes is not None:
            read_attributes(file.attributes, graph, problems)
        _label(graph)
        graphs.append(graph)
    left, right = graphs
    links = read_links(seeds.path, left, right, problems)
    if test is None:
        return merged(left, right, links, _vectors(features, left, right, problems)), None
    return _with_splits(left, right, {"train": links, "test": read_links(test.path, left, right, problems)},
                        _vectors(features, left, right, problems), test.path)  # fmt: skip


def _dbp15k(folder: PairFolder, features: Mapping[Dense, Features], problems: Problems) -> tuple[Pair, Ints | None]:
    path, graphs = folder.path, []
    for number in (1, 2):
        graph = read_ids(path / f"ent_ids_{number}", problems)
        read_triples(path / f"triples_{number}", graph, problems, known=True)
        if (attributes := path / f"training_attrs_{number}").is_file():
            read_attributes(attributes, graph, problems, known=True)
        graphs.append(graph)
    left, right = graphs
    if folder.names is not None:
        read_names(folder.names, graphs, problems)
    reference = read_links(path / "ref_ent_ids", left, right, problems)
    vectors = _vectors(features, left, right, problems)
    if not (seeds := path / "sup_ent_ids").is_file():
        return merged(left, right, reference, vectors), None
    return _with_splits(
        left, right, {"train": read_links(seeds, left, right, problems), "test": reference}, vectors, seeds
    )


def _openea(folder: PairFolder, features: Mapping[Dense, Features], problems: Problems) -> tuple[Pair, Ints | None]:
    path, graphs = folder.path, []
    for number in (1, 2):
        graph = Graph()
        read_triples(path / f"rel_triples_{number}", graph, problems)
        if (attributes := path / f"attr_triples_{number}").is_file():
            read_attributes(attributes, graph, problems)
        _label(graph)
        graphs.append(graph)
    left, right = graphs
    links = read_links(path / "ent_links", left, right, problems)
    vectors = _vectors(features, left, right, problems)
    fold = folder.fold_folder
    if fold is None:
        return merged(left, right, links, vectors), None
    by_split: dict[Split, list[tuple[int, int]]] = {
        split: read_links(fold / name, left, right, problems) for split, name in zip(SPLITS, OPENEA_SPLITS, strict=True)
    }
    return _with_splits(left, right, by_split, vectors, fold)


def _label(graph: Graph) -> None:
    """Labels from the names of the entities, where nothing else names them."""
    graph.labels = {index: label_of(name) for name, index in graph.entities.items()}


def _with_splits(
    left: Graph,
    right: Graph,
    by_split: Mapping[Split, list[tuple[int, int]]],
    vectors: Mapping[str, Vectors],
    where: Path,
) -> tuple[Pair, Ints]:
    links: list[tuple[int, int]] = []
    splits: list[int] = []
    for split, found in by_split.items():
        links += found
        splits += [SPLITS.index(split)] * len(found)
    for column, side in enumerate(("left", "right")):
        if len({link[column] for link in links}) != len(links):
            raise StageError(f"{where}: an entity of the {side} graph is in the links of two splits; expected one")
    return merged(left, right, links, vectors), np.array(splits, np.int64)


def _vectors(features: Mapping[Dense, Features], left: Graph, right: Graph, problems: Problems) -> dict[str, Vectors]:
    return {
        modality: together(
            [
                read_features(files.left.path, files.encoder, left.entities, 0, problems),
                read_features(files.right.path, files.encoder, right.entities, len(left.entities), problems),
            ],
            modality,
        )
        for modality, files in features.items()
    }
