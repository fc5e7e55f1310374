"""Decides how often each document is trained on, so that sources or languages have the requested proportions.

A group of n bytes whose share of the mixture is q bytes is read q / n times: each document is drawn the whole number of
times, and once more depending on the hash of its id, so that the draw does not depend on any order. Shares come from
fixed ratios, or are proportional to n**alpha (Conneau et al. 2020, arXiv 1911.02116: an alpha below 1 raises small
languages). No group is read more than `max_epochs` times; the other groups get the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from stages.artifacts.corpus import Document
from stages.base import Config, StageError


class Mixing(Config):
    """The proportions of a mixture, in bytes of text."""

    by: Literal["source", "language"] = "source"
    groups: Mapping[str, tuple[str, ...]] = {}  # several sources or languages as one: its name -> theirs
    ratios: Mapping[str, PositiveFloat] = {}  # relative, of each group; groups without a ratio are omitted
    alpha: float = Field(default=1.0, ge=0, le=1)  # if there are no ratios
    max_epochs: PositiveFloat = 4.0  # of any group
    total_bytes: PositiveInt | None = None  # of the mixture, about; null: the size of the training split

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.ratios and self.alpha != 1:
            raise ValueError("alpha has no effect with ratios: set one of them")
        members = [name for names in self.groups.values() for name in names]
        if repeated := {name for name in members if members.count(name) > 1}:
            raise ValueError(f"{min(repeated)!r} is in groups twice")
        if self.ratios and (unknown := set(self.groups) - set(self.ratios)):
            raise ValueError(f"group {min(unknown)!r} has no ratio")
        return self

    def group(self, document: Document) -> str:
        """The group of a document."""
        name = str(getattr(document, self.by))
        return next((group for group, names in self.groups.items() if name in names), name)

    def epochs(self, sizes: Mapping[str, int], weights: Mapping[str, float] | None = None) -> dict[str, float]:
        """The number of times that each group of `sizes` bytes is read. `weights`: p = (weight * size)**alpha.

        Raises StageError if no group has a share.
        """
        present = {name: size for name, size in sizes.items() if size}
        if self.ratios:
            shares = {name: self.ratios[name] for name in present if name in self.ratios}
        else:
            shares = {name: (size * (weights or {}).get(name, 1.0)) ** self.alpha for name, size in present.items()}
        if not shares:
            held = ", ".join(sorted(present)) or "nothing"
            raise StageError(
                f"mixing.ratios: no {self.by} of the corpus has a ratio; the training split contains {held}"
            )
        total = float(self.total_bytes or sum(present.values()))
        found = dict.fromkeys(sizes, 0.0)
        while shares:
            unit = max(total, 0) / sum(shares.values())
            full = [name for name, share in shares.items() if share * unit > self.max_epochs * present[name]]
            if not full:
                return found | {name: share * unit / present[name] for name, share in shares.items()}
            for name in full:
                found[name] = self.max_epochs
                total -= self.max_epochs * present[name]
                del shares[name]
        return found

    def sizes(self, documents: Iterable[Document]) -> dict[str, int]:
        """The bytes of each group."""
        found: dict[str, int] = defaultdict(int)
        for document in documents:
            found[self.group(document)] += len(document.text.encode())
        return dict(sorted(found.items()))

    def mixed(self, documents: Callable[[], Iterator[Document]], epochs: Mapping[str, float]) -> Iterator[Document]:
        """Each document as often as it is drawn: a pass over all, then one over those drawn twice, and so on."""
        for turn in range(int(max(epochs.values())) + 1):
            for document in documents():
                if times_drawn(document.id, epochs[self.group(document)]) > turn:
                    yield document


def times_drawn(id_: str, epochs: float) -> int:
    """The number of draws of a document in a group that is read `epochs` times: rounded down or up by its id."""
    whole = int(epochs)
    return whole + (int(id_[16:], 16) < (epochs - whole) * 2.0**64)
