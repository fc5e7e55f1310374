"""The operations by name: what an entry of a source's list may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.corpus.operations.characters import Characters
from stages.corpus.operations.normalise import Normalise

AnyOperation = Annotated[Characters | Normalise, Field(discriminator="operation")]
