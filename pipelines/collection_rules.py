"""Which artifacts `artifacts gc` removes: by age, by size and by who made them, as people write them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines import own_keys
from pipelines.errors import BloomlineError
from pipelines.store import Record

AGES = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
SIZES = {"": 1, "B": 1, "kB": 1000, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True)
class Rules:
    """Of the artifacts that are not the latest of a step, those that are old and large enough, and of one user."""

    older_s: float = 0.0
    larger_bytes: int = 0
    user: str | None = None

    def match(self, record: Record, made_by: str | None) -> bool:
        """`made_by`: the user whose run made the artifact, None if the run is not remembered."""
        if self.user is not None and made_by != self.user:
            return False
        return time.time() - record.created >= self.older_s and record.size_bytes >= self.larger_bytes


def split(overrides: Iterable[str]) -> tuple[Rules | None, list[str]]:
    """The rules among the overrides of a command line, None if there are none, and the other overrides.

    Raises BloomlineError for a rule that can't be read.
    """
    own, others = own_keys.split("artifacts", overrides)
    if not own:
        return None, others
    return Rules(_age(own.get("older", "0h")), _size(own.get("larger", "0")), own.get("user")), others


def _age(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if not found:
        raise BloomlineError(f"artifacts gc: older={text}; expected a time such as 12h, 30d or 8w.")
    return float(found[1]) * AGES[found[2]]


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    if not found or found[2] not in SIZES:
        raise BloomlineError(f"artifacts gc: larger={text}; expected a size such as 500MB or 2GiB.")
    return round(float(found[1]) * SIZES[found[2]])
