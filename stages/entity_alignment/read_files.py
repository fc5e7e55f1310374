"""Reads the files of knowledge graphs: triples as TSV or N-Triples (plain or .gz), links, id lists, names.

Nothing read is trusted: sizes are bounded, nothing is unpickled, and what is wrong is named with its file and line.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from stages.base import StageError
from stages.entity_alignment.graphs import Graph
from stages.entity_alignment.problems import Problems

LINE_LIMIT_BYTES = 1 << 20
NAMES_LIMIT_BYTES = 1 << 28
_IRI = r"<([^<>\"{}|^`\\\x00-\x20]*)>"
_SUBJECT = rf"(?:{_IRI}|(_:[^\s<>\"]+))"
_LITERAL = r'("(?:[^"\\]|\\.)*"(?:@[A-Za-z0-9-]+|\^\^<[^<>\s]*>)?)'
_STATEMENT = re.compile(rf"\s*{_SUBJECT}\s*{_IRI}\s*(?:{_SUBJECT}|{_LITERAL})\s*\.\s*(?:#.*)?$")
_WORD_BREAKS = re.compile(r"[\W_]+")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, plain or .gz, with their numbers from 1, without empty ones. Raises StageError."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(LINE_LIMIT_BYTES + 1):
                number += 1
                if len(line) > LINE_LIMIT_BYTES:
                    raise StageError(f"{path}:{number}: longer than {LINE_LIMIT_BYTES} bytes; expected one statement")
                # The first line may begin with a byte order mark, which is not a part of an id.
                if text := line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"):
                    yield number, text
    except UnicodeDecodeError:
        raise StageError(f"{path}:{number}: expected text in UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise StageError(f"{path} cannot be read: {error}") from None


def columns(path: Path, expected: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The lines of a TSV file, each with exactly the expected columns. Raises StageError."""
    for number, line in lines(path):
        values = line.split("\t")
        if len(values) != len(expected):
            names = ", ".join(expected)
            raise StageError(
                f"{path}:{number}: {len(values)} column{'s' if len(values) != 1 else ''} separated by tabs; "
                f"expected {len(expected)} ({names})"
            )
        yield number, values


def read_ids(path: Path, problems: Problems) -> Graph:
    """An id list of DBP15K, "id<TAB>name" in each line: a graph of these entities. Their names are the ids' texts."""
    graph = Graph()
    for number, (identifier, name) in columns(path, ("id", "name")):
        if not identifier.isdecimal():
            raise StageError(f"{path}:{number}: {identifier!r} is not an id; expected a number")
        if identifier in graph.entities:
            problems.add("duplicate id", path, number, f"the id {identifier} occurs again")
            continue
        graph.labels[graph.entity(identifier)] = label_of(name)
    return graph


def read_triples(path: Path, graph: Graph, problems: Problems, *, known: bool = False) -> None:
    """Add the triples of a file to a graph: "head<TAB>relation<TAB>tail", or N-Triples where the name ends with .nt.

    `known`: the graph has all entities already, and any other is a dangling id. Literals of N-Triples are attributes.
    """
    ntriples = path.name.endswith((".nt", ".nt.gz"))
    for number, (head, relation, tail, literal) in _statements(path) if ntriples else _rows(path):
        if not relation:
            problems.add("empty relation", path, number, f"{head!r} and {tail!r} are related by nothing")
            continue
        if literal:
            graph.attributes.append((graph.entity(head), relation))
            continue
        unknown = [name for name in (head, tail) if known and name not in graph.entities]
        if unknown:
            problems.add("dangling id", path, number, f"no entity has the id {unknown[0]!r}")
            continue
        graph.triples.append((graph.entity(head), relation, graph.entity(tail)))
    if not graph.entities:
        raise StageError(f"{path}: no entity is in it; expected a statement in each line")


def _rows(path: Path) -> Iterator[tuple[int, tuple[str, str, str, bool]]]:
    for number, (head, relation, tail) in columns(path, ("head", "relation", "tail")):
        yield number, (head, relation, tail, False)


def _statements(path: Path) -> Iterator[tuple[int, tuple[str, str, str, bool]]]:
    for number, line in lines(path):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        found = _STATEMENT.match(line)
        if found is None:
            raise StageError(f"{path}:{number}: not a statement of N-Triples; expected <head> <relation> <tail> .")
        head, blank, relation, tail, blank_tail, literal = found.groups()
        yield number, (head or blank, relation, tail or blank_tail or "", literal is not None)


def read_attributes(path: Path, graph: Graph, problems: Problems, *, known: bool = False) -> None:
    """Add attributes: an entity and one or more attribute names in each line (DBP15K), or entity, attribute and value
    (OpenEA, "attr_triples_*"). The value is not used."""
    with_values = path.name.startswith("attr_triples")
    for number, line in lines(path):
        entity, *names = line.split("\t")
        if not names:
            raise StageError(f"{path}:{number}: one column; expected an entity and its attributes, separated by tabs")
        if known and entity not in graph.entities:
            problems.add("dangling id", path, number, f"no entity has the id {entity!r}")
            continue
        index = graph.entity(entity)
        graph.attributes += [(index, name) for name in (names[:1] if with_values else names) if name]


def read_links(path: Path, left: Graph, right: Graph, problems: Problems) -> list[tuple[int, int]]:
    """Links, "left<TAB>right" in each line, as ids. A link has to be between known entities, once, and one to one."""
    links: dict[tuple[int, int], int] = {}
    taken: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for number, names in columns(path, ("left", "right")):
        unknown = [name for name, graph in zip(names, (left, right), strict=True) if name not in graph.entities]
        if unknown:
            problems.add("dangling link", path, number, f"no entity of that side has the id {unknown[0]!r}")
            continue
        link = left.entities[names[0]], right.entities[names[1]]
        if link in links:
            problems.add("duplicate link", path, number, f"the link is already in line {links[link]}")
            continue
        other = taken[0].get(link[0]) or taken[1].get(link[1])
        if other:
            problems.add("link that is not one to one", path, number, f"line {other} links one of {names} already")
            continue
        links[link] = taken[0][link[0]] = taken[1][link[1]] = number
    return list(links)


def read_names(path: Path, graphs: Sequence[Graph], problems: Problems) -> None:
    """Replace labels by those of a JSON file [[id, [word, ...]], ...], such as the translated names of DBP15K."""
    try:
        if path.stat().st_size > NAMES_LIMIT_BYTES:
            raise StageError(f"{path} is larger than {NAMES_LIMIT_BYTES} bytes")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise StageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, list):
        raise StageError(f"{path}: expected a list of [id, [word, ...]]")
    for place, entry in enumerate(found, 1):
        match entry:
            case [int(identifier), [*words]] if all(isinstance(word, str) for word in words):
                pass
            case _:
                raise StageError(f"{path}: entry {place} is {str(entry)[:80]}; expected [id, [word, ...]]")
        graph = next((one for one in graphs if str(identifier) in one.entities), None)
        if graph is None:
            problems.add("name of an unknown entity", path, place, f"no entity has the id {identifier}")
        else:
            graph.labels[graph.entities[str(identifier)]] = " ".join(words)


def label_of(name: str) -> str:
    """The words of an entity's name or address: what follows its last slash or hash."""
    last = re.split(r"[/#]", name.rstrip("/#"))[-1] if "://" in name else name
    return _WORD_BREAKS.sub(" ", unquote(last)).strip()
