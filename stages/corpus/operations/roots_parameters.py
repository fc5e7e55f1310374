"""ROOTS' parameters by language (arXiv 2303.03915, section 3.3): a shipped table or a file, with changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from stages.base import Config, External
from stages.corpus.operations.word_lists import quality_table

Ratio = Annotated[float, Field(ge=0, le=1)]
DEFAULT = "default"  # the entry for languages without their own


class RootsParameters(Config):
    """The parameters of one language. None turns a rule off. The defaults are ROOTS' for languages without an entry."""

    min_words: NonNegativeInt | None = 10
    max_words: PositiveInt | None = 100_000
    longest_word: PositiveInt | None = None  # characters; longer words are removed
    unwanted_in_words: tuple[
        Annotated[str, Field(min_length=1)], ...
    ] = ()  # words that contain one of these are removed
    character_ngram: PositiveInt = 10
    max_character_repetition: Ratio | None = 0.2
    word_ngram: PositiveInt = 5
    max_word_repetition: Ratio | None = 0.3
    max_special_characters: Ratio | None = 0.4
    min_stop_words: Ratio | None = 0.1
    max_flagged_words: Ratio | None = 0.1
    min_language_score: Ratio | None = 0.7
    max_perplexity: NonNegativeFloat | None = 10_000
    neighbours_joined_by: str | None = None  # pairs of words, joined by this, are looked up in the lists as well


class RootsTable(External):
    """Parameters by language. In YAML, the name of the table is enough. It is identified by its content."""

    table: str = "roots"  # of conf/corpus/quality, or the path of a YAML file of the same form
    changes: Mapping[str, RootsParameters] = {}  # by language: replaces single values of the table

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"table": value} if isinstance(value, str) else value

    @field_validator("table")
    @classmethod
    def _absolute(cls, table: str) -> str:
        # Workers run in other folders than the command.
        return str(Path(table).expanduser().absolute()) if table.endswith((".yaml", ".yml")) else table

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.languages()
        return self

    def languages(self) -> dict[str, RootsParameters]:
        """The parameters of each language with an entry, and `default`. Raises ValueError for an invalid table."""
        found = quality_table(self.table)
        if not isinstance(found, Mapping) or DEFAULT not in found:
            raise ValueError(f"{self.table} is not a table of parameters by language with an entry {DEFAULT!r}")
        try:
            languages = {code: RootsParameters.model_validate(numbers or {}) for code, numbers in found.items()}
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{self.table}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        for code, change in self.changes.items():
            before = languages.get(code, languages[DEFAULT])
            languages[code] = before.model_copy(
                update={name: getattr(change, name) for name in change.model_fields_set}
            )
        return languages

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        values = {code: numbers.model_dump() for code, numbers in self.languages().items()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
