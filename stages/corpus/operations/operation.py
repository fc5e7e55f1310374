"""What an operation on a document is: a typed config that makes a pure function of a draft.

    - {operation: words, minimum: 20}          # in YAML: an entry of a source's ordered list

A function takes a `Draft` and returns one (the same if nothing changed) or a `Drop`. It depends on the draft and its
own config alone, never on other documents or the order of work: what needs the whole corpus (duplicates, mixing) is
not an operation. Whatever is slow to load is loaded once per worker, in `function`. A field may be an artifact type:
like a field of a stage, it is an edge (in YAML: the name of the step that makes it), bound before `function` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stages.base import Config


@dataclass(frozen=True)
class Draft:
    """A document on its way through the operations of its source."""

    text: str
    path: str  # within its source
    url: str = ""  # empty if it has none
    license: str = "unknown"
    language: str = ""  # a code of the corpus's languages ("en", "fr", "zhs") or of programming ("python")
    counts: Mapping[str, int] = field(default_factory=dict)  # what operations did to it: "pii_email" -> 3


@dataclass(frozen=True)
class Drop:
    """A refusal, as the ledger keeps it: the rule that was broken, what was found and what was allowed."""

    rule: str  # a name under which the manifest counts: "too_few_words", "character_repetition", ...
    value: float | str
    threshold: float | str


Apply = Callable[[Draft], Draft | Drop]


class Operation(Config):
    """One entry of a source's list. Subclasses add `operation: Literal["name"] = "name"` and their parameters.

    All of its fields are part of what comes out, and so is its `version`.
    """

    def function(self) -> Apply:
        """The operation, ready to be applied to many drafts. Loads what it needs; raises StageError if it can't."""
        raise NotImplementedError
