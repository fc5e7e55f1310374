"""A scripted service on a real server, for the tests of HTTP requests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from stages.serving.http import application
from tests.stages.serving.support import ServedService, scripted_service, serving


@pytest.fixture(scope="module")
def served() -> Iterator[ServedService]:
    service, batch = scripted_service(max_body_bytes=20_000, body_timeout_s=1.0)
    with serving(application(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client, service, batch


@pytest.fixture
def client(served: ServedService) -> httpx.Client:
    return served[0]
