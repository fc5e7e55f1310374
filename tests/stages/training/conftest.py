from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stages.training.toy import Workers


@pytest.fixture(scope="package")
def workers() -> Iterator[Workers]:
    """Four processes that run gangs."""
    started = Workers(4)
    yield started
    started.close()
