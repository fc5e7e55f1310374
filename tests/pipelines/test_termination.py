"""A signal ends a composition even if a library discards the exception of its handler."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest

from pipelines import termination
from pipelines.config import composing
from pipelines.termination import Terminated, terminate


@pytest.fixture(autouse=True)
def nothing_received(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "_received", [])


def composed_by_a_library(error: Exception | None) -> None:
    """Discards the exception of the handler, as OmegaConf does, and may raise another one for what is half made."""
    with composing([]):
        with suppress(KeyboardInterrupt):
            terminate(signal.SIGTERM, None)
        if error:
            raise error


@pytest.mark.parametrize("error", [None, ValueError("a value that is half made"), AttributeError("the same")])
def test_a_signal_is_not_lost(error: Exception | None) -> None:
    with pytest.raises(Terminated) as caught:
        composed_by_a_library(error)
    assert caught.value.number == signal.SIGTERM


def test_without_a_signal_nothing_is_raised() -> None:
    with composing([]):
        pass
