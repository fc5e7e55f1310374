"""What a check found, and checks that end in time whatever they ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: what was found, and for a trouble what to do."""

    state: State
    text: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def within(seconds: float, what: str, check: Check, remedy: str) -> list[Finding]:
    """What a check finds. One that takes longer has failed with what it has found so far: its thread is left behind.

    `what`: is checked, and `remedy`: what to do, for a check that raises an error or does not end.
    """
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check())
        except Exception as error:  # of a library, for whatever answers at an address
            found.append(Finding("failed", f"{what}: {first_line(error)}", remedy))

    thread = threading.Thread(target=run, name="doctor", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return [*found, Finding("failed", f"{what} did not answer within {seconds:g} s", remedy)]
    return found


def first_line(error: BaseException) -> str:
    """The first line of an error, short enough for a line of the terminal."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
