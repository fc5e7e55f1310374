"""The base class of deduplication rules: a typed config that decides over the whole corpus.

    - {rule: near, similarity: 0.8}          # in YAML: an entry of the corpus's ordered list `deduplicate`

The rules apply in order, each to the documents that the previous ones kept. A decision depends on content, and on the
ranks of sources and the ids of documents (which of several duplicates is kept), but not on the order of reading.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from stages.base import Config
from stages.corpus.declared_name import check_declared_name
from stages.corpus.ingestion.drafts import Drafts
from stages.corpus.ingestion.rule_decision import Decider


class DeduplicationRule(Config):
    """One entry of the list. Subclasses add `rule: Literal["name"] = "name"` and their parameters."""

    rule: str

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        check_declared_name(cls, "rule")
        return value

    def decider(self, drafts: Drafts) -> Decider:
        """The rule, ready to decide; measures what it needs of every draft first."""
        raise NotImplementedError
