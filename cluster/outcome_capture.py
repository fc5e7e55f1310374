"""Converts the exception that ends a piece of work into an `Outcome`, and an `Outcome` into an exception.

Exceptions are never passed between processes: their classes may not exist, or not unpickle, on the other side.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from cluster.base import Outcome
from cluster.extras import missing_extra
from stages.base import StageError, Stopped


class WorkError(Exception):
    """An exception that was raised in another process, with its message and its traceback as text."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


def capture_outcome(step: str, function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call `function(*arguments)` and return how it ended."""
    try:
        return Outcome(step, "done", result=function(*arguments))
    except (Stopped, KeyboardInterrupt):
        return Outcome(step, "stopped")
    except StageError as error:
        return Outcome(step, "failed", error=str(error))
    except WorkError as error:
        return Outcome(step, "failed", error=str(error), trace=error.trace)
    except BaseException as error:  # including the SystemExit of a stage that calls sys.exit()
        if refusal := missing_extra(error):
            return Outcome(step, "failed", error=refusal)
        return Outcome(step, "failed", error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


def reraise(outcome: Outcome) -> None:
    """Raise the exception that ended a piece of work in another process, if one did."""
    if outcome.state == "stopped":
        raise Stopped
    if outcome.state == "failed" and not outcome.trace:
        raise StageError(outcome.error)
    if outcome.state == "failed":
        raise WorkError(outcome.error, outcome.trace)
