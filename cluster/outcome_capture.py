"""Converts the exception that ends a piece of work into an `Outcome`, and an `Outcome` into an exception.

Exceptions are never passed between processes: their classes may not exist, or not unpickle, on the other side.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.base import Outcome
from cluster.extras import missing_extra
from cluster.import_path import library_directories
from stages.base import StageError, Stopped
from stages.packages import OWN_PACKAGES


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
        return Outcome(step, "failed", error=_with_place(error), trace=traceback.format_exc())


def reraise(outcome: Outcome) -> None:
    """Raise the exception that ended a piece of work in another process, if one did."""
    if outcome.state == "stopped":
        raise Stopped
    if outcome.state == "failed" and not outcome.trace:
        raise StageError(outcome.error)
    if outcome.state == "failed":
        raise WorkError(outcome.error, outcome.trace)


def _with_place(error: BaseException) -> str:
    """The type and message of an exception, and where it was raised: `ValueError: too long (my_package/words.py:20)`.

    The place is the innermost line of a user's own code, or the innermost line of all if no such code was running.
    """
    places = [
        (str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") != __name__  # the call in `capture_outcome`
    ]
    own = [place for place in places if _is_users(place[0], place[1])]
    message = f"{type(error).__name__}: {error}".rstrip(": ")
    if not places:
        return message
    module, file, line = (own or places)[-1]
    depth = module.count(".") + (2 if Path(file).stem == "__init__" else 1)
    return f"{message} ({'/'.join(Path(file).parts[-depth:])}:{line})"


def _is_users(module: str, file: str) -> bool:
    """Whether a module is neither one of bloomline's nor one of an installed library."""
    if module.partition(".")[0] in OWN_PACKAGES or file.startswith("<"):
        return False
    return not any(Path(file).is_relative_to(library) for library in library_directories())
