"""Every rule for duplicates by name. To add one: a module beside this with a `Rule`, and a place in `AnyRule`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.corpus.deduplication.exact import ExactDuplicates
from stages.corpus.deduplication.minhash import NearDuplicates
from stages.corpus.deduplication.same_address import SameAddress
from stages.corpus.deduplication.simhash import SimilarFingerprints
from stages.corpus.deduplication.substrings import RepeatedSubstrings
from stages.corpus.deduplication.template_lines import TemplateLines

AnyRule = Annotated[
    ExactDuplicates | SameAddress | TemplateLines | NearDuplicates | SimilarFingerprints | RepeatedSubstrings,
    Field(discriminator="rule"),
]
