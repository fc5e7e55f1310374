"""The base class of operations on documents: a typed config that gives a pure function of a draft.

    - {operation: words, minimum: 20}          # in YAML: an entry of a source's ordered list

The function takes a `Draft` and returns a `Draft` (the same one if nothing changed) or a `Drop`. It depends only on the
draft and the config, not on other documents or the order of work; what needs the whole corpus (duplicates, mixing) is
not an operation. `function` loads what is slow to load, once per worker. A field may be an artifact type: like a field
of a stage, it is an edge (in YAML, the name of the step that produces it), bound before `function` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from pydantic import model_validator

from stages.base import Config
from stages.corpus.declared_name import check_declared_name


class Check(NamedTuple):
    """A number that an operation compares with a threshold. The data card shows the distribution of these numbers."""

    rule: str  # that drops the document if it `fails`
    value: float
    threshold: float
    fails: bool


@dataclass(frozen=True)
class Draft:
    """A document on its way through the operations of its source."""

    text: str
    path: str  # within its source
    url: str = ""  # empty if it has none
    license: str = "unknown"
    language: str = ""  # a code of stages/corpus/languages.py ("en", "zhs", "python")
    counts: Mapping[str, int] = field(default_factory=dict)  # what operations counted: "pii_email" -> 3
    checks: tuple[Check, ...] = field(default=(), compare=False)  # of the last operation, which the document passed


@dataclass(frozen=True)
class Drop:
    """A dropped document, as the ledger records it: the rule, the value that was found, and the threshold."""

    rule: str  # a name that the manifest counts by: "too_few_words", "character_repetition", ...
    value: float | str
    threshold: float | str
    checks: tuple[Check, ...] = field(default=(), compare=False)  # of the operation, up to the one that failed


Apply = Callable[[Draft], Draft | Drop]


def at_least(rule: str, value: float, threshold: float) -> Check:
    return Check(rule, value, threshold, value < threshold)


def at_most(rule: str, value: float, threshold: float) -> Check:
    return Check(rule, value, threshold, value > threshold)


def checked(draft: Draft, checks: Iterable[Check | Drop]) -> Draft | Drop:
    """The draft with its checks, or the first drop: by a check that fails, or one that is given.

    What comes after it is not computed.
    """
    done: list[Check] = []
    for check in checks:
        if isinstance(check, Drop):
            return replace(check, checks=tuple(done))
        done.append(check)
        if check.fails:
            return Drop(check.rule, check.value, check.threshold, tuple(done))
    return replace(draft, checks=tuple(done))


class Operation(Config):
    """One entry of a source's list. Subclasses add `operation: Literal["name"] = "name"` and their parameters.

    All fields and the `version` are part of the identity of the result.
    """

    removes_markup: ClassVar[bool] = False  # what it takes away is not text, and not counted as lost text

    operation: str

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        check_declared_name(cls, "operation")
        return value

    def function(self) -> Apply:
        """The function of this operation. Loads what it needs; raises StageError if it cannot."""
        raise NotImplementedError
