"""An HTTP client for trials of served applications, with the standard library only.

A thin client measures the server and not itself, and works wherever a stage runs.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from stages.base import StageError

TIMEOUT_S = 120.0


class Client:
    """Requests to one server. Raises StageError if the server does not answer."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request. Returns the status and the body of the answer."""
        with closing(self._connection()) as connection:
            try:
                response = self._send(connection, method, path, body)
                return response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                raise StageError(f"the server does not answer {method} {path}: {error!r}") from error

    def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send one request. Returns the JSON value of the answer. Raises StageError unless its status is 200."""
        status, answer = self.exchange(method, path, None if body is None else json.dumps(dict(body)).encode())
        if status != 200:
            raise StageError(f"{method} {path} was answered with status {status}: {answer[:500]!r}")
        try:
            return json.loads(answer)
        except ValueError:
            raise StageError(f"the answer to {method} {path} is not JSON: {answer[:500]!r}") from None

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """POST a request that is answered with server-sent events. Yields the data of each as it arrives."""
        with closing(self._connection()) as connection:
            try:
                response = self._send(connection, "POST", path, json.dumps(dict(body)).encode())
                if response.status != 200:
                    answer = response.read()[:500]
                    raise StageError(f"a streamed POST {path} was answered with status {response.status}: {answer!r}")
                for line in response:
                    if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                        yield json.loads(line[6:])
            except (OSError, http.client.HTTPException) as error:
                raise StageError(f"the stream of POST {path} was interrupted: {error!r}") from error

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_S)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> http.client.HTTPResponse:
        headers = {"content-type": "application/json"} if body is not None else {}
        connection.request(method, self._parts.path + path, body, headers)
        return connection.getresponse()
