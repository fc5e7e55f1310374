"""Emoji in two languages as two knowledge graphs, from the data of the package `emoji`.

Entities are the emoji, and the words of their names: nodes of their own in each language, which have no counterpart.
The relations are words of a name, and the parts of a sequence that are emoji themselves. The attributes are the
version that introduced an emoji and the general categories of its characters. The gold links join what is the same
emoji.

So that the links cannot be read off: code points are no features, the relations of the two graphs have different names,
words are nodes of one language alone, entities are listed in an order of their own on each side, and a random share of
the edges and attributes of each side is missing.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any

import numpy as np

from stages.entity_alignment.emoji_files import data_files
from stages.entity_alignment.graphs import Graph, Pair, merged
from stages.entity_alignment.sources import EmojiPair

JOINER = "\u200d"
INVISIBLE = {JOINER, "\ufe0f"}
TONES = range(0x1F3FB, 0x1F400)
SHARED_NAMES = 2  # a word is a node if that many names of the language have it


def make(source: EmojiPair) -> Pair:
    """The pair. Raises StageError if the package lacks a language."""
    data = _emoji(source)
    random = np.random.default_rng(source.seed)
    graphs = []
    for side, language in enumerate(source.languages):
        order = random.permutation(len(data))
        graphs.append(_graph([data[place] for place in order], language, f"{language}{side}", source.dropped, random))
    left, right = graphs
    links = [(left.entities[sign], right.entities[sign]) for sign, _ in data]
    return merged(left, right, links)


def _emoji(source: EmojiPair) -> list[tuple[str, Any]]:
    """The emoji that have a name in both languages, without the variants by skin tone."""
    import emoji

    data_files(source.languages)
    for language in source.languages:
        emoji.config.load_language(language)
    qualified = emoji.STATUS["fully_qualified"]
    found = [
        (sign, data)
        for sign, data in sorted(emoji.EMOJI_DATA.items())
        if data["status"] == qualified
        and all(language in data for language in source.languages)
        and not any(ord(character) in TONES for character in sign)
    ]
    return found[: source.limit]


def _graph(
    data: list[tuple[str, Any]], language: str, prefix: str, dropped: float, random: np.random.Generator
) -> Graph:
    graph = Graph()
    names = {sign: facts[language].strip(":").replace("_", " ").replace("-", " ").lower() for sign, facts in data}
    uses = Counter(word for name in names.values() for word in set(name.split()))
    for sign in names:
        graph.labels[graph.entity(sign)] = names[sign]
    parts = {sign.replace("\ufe0f", ""): sign for sign in names}

    def add_edge(head: str, relation: str, tail: str) -> None:
        if random.random() >= dropped:
            graph.triples.append((graph.entity(head), f"{prefix}:{relation}", graph.entity(tail)))

    for sign, facts in data:
        for word in dict.fromkeys(names[sign].split()):
            if uses[word] >= SHARED_NAMES and len(word) > 1:
                add_edge(sign, "word", f"{prefix}:{word}")
                graph.labels.setdefault(graph.entity(f"{prefix}:{word}"), word)
        for part in dict.fromkeys(sign.split(JOINER)):
            component = parts.get(part.replace("\ufe0f", ""))
            if component is not None and component != sign:
                add_edge(sign, "part", component)
        categories = {unicodedata.category(character) for character in sign if character not in INVISIBLE}
        for attribute in (f"version {facts['E']}", *sorted(categories)):
            if random.random() >= dropped:
                graph.attributes.append((graph.entity(sign), attribute))
    return graph
