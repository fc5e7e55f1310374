"""What a rule for duplicates is: a typed config that makes a judge over the whole corpus.

    - {rule: near, similarity: 0.8}          # in YAML: an entry of the corpus's ordered list `deduplicate`

A judge is asked in turn, of what those before it left. It decides from content, and by the ranks of sources and the
ids of documents which of several stays: never by the order of reading.
"""

from __future__ import annotations

from stages.base import Config
from stages.corpus.ingestion.document_index import Judge
from stages.corpus.ingestion.drafts import Drafts


class Rule(Config):
    """One entry of the list. Subclasses add `rule: Literal["name"] = "name"` and their parameters."""

    def judge(self, drafts: Drafts) -> Judge:
        """The rule, ready to decide; measures what it needs to know of every draft."""
        raise NotImplementedError
