"""One try of a piece of work, in whatever process it runs: an exception becomes an `Outcome` here.

Exceptions never travel between processes: their classes may not exist, or not unpickle, on the other side.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from cluster.base import Outcome
from cluster.extras import missing_extra
from stages.base import StageError, Stopped


class WorkError(Exception):
    """An exception that was raised in another process: its message, and its traceback as text."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


def attempt(step: str, function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call `function(*arguments)` and tell how it ended."""
    try:
        return Outcome(step, "done", result=function(*arguments))
    except (Stopped, KeyboardInterrupt):
        return Outcome(step, "stopped")
    except StageError as error:
        return Outcome(step, "failed", error=str(error))
    except WorkError as error:
        return Outcome(step, "failed", error=str(error), trace=error.trace)
    except BaseException as error:  # a stage that calls sys.exit() has failed, like any other
        if refusal := missing_extra(error):
            return Outcome(step, "failed", error=refusal)
        return Outcome(step, "failed", error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


def reraise(outcome: Outcome) -> None:
    """Raise here what ended a piece of work elsewhere."""
    if outcome.state == "stopped":
        raise Stopped
    if outcome.state == "failed" and not outcome.trace:
        raise StageError(outcome.error)
    if outcome.state == "failed":
        raise WorkError(outcome.error, outcome.trace)
