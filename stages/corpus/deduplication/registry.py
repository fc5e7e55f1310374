"""The deduplication rules by name. Users' packages add rules by the entry points `bloomline.deduplication`."""

from __future__ import annotations

from typing import Annotated

from stages.corpus.deduplication.rule import DeduplicationRule
from stages.registry import ChosenBy, Registry

RULES = Registry(
    "bloomline.deduplication",
    "a deduplication rule",
    DeduplicationRule,
    {
        "exact": "stages.corpus.deduplication.exact:ExactDuplicates",
        "url": "stages.corpus.deduplication.same_address:SameAddress",
        "lines": "stages.corpus.deduplication.template_lines:TemplateLines",
        "near": "stages.corpus.deduplication.minhash:NearDuplicates",
        "simhash": "stages.corpus.deduplication.simhash:SimilarFingerprints",
        "substrings": "stages.corpus.deduplication.substrings:RepeatedSubstrings",
    },
)

AnyRule = Annotated[DeduplicationRule, ChosenBy(RULES, "rule")]
