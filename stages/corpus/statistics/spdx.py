"""Checks SPDX licence expressions ("MIT OR (GPL-2.0-only WITH Classpath-exception-2.0)") against lists of names.

With OR, a user may choose, so one accepted part is enough; with AND, every part must be accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache


def accepts(expression: str, accepted: Callable[[str], bool]) -> bool:
    """Whether a licence is accepted, given a decision on each name in it (in lower case, "x with y" as one name).

    A text that is not an SPDX expression is one name.
    """
    from boolean import AND, OR

    def decide(part: object) -> bool:
        if isinstance(part, OR):
            return any(map(decide, part.args))
        if isinstance(part, AND):
            return all(map(decide, part.args))
        return accepted(str(part).lower())

    parsed = _parsed(expression)
    return accepted(expression.strip().lower()) if parsed is None else decide(parsed)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether the name of a licence (lower case) matches one of `patterns` (lower case; "*" matches anything).

    A licence with an exception matches as a whole, or without the exception.
    """
    alone = name.split(" with ")[0]
    return any(fnmatchcase(name, pattern) or fnmatchcase(alone, pattern) for pattern in patterns)


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> object | None:
    from boolean import ParseError
    from license_expression import ExpressionError, Licensing

    try:
        parsed: object | None = Licensing().parse(expression)
    except (ExpressionError, ParseError):
        return None
    return parsed
