"""HTTP/1.1 with limits on what a client may send and hold before an application sees its request.

uvicorn itself limits neither the number of its connections nor the time in which a request has to arrive. h11, its
parser in Python, limits the headers of a request that is not complete.
"""

from __future__ import annotations

import asyncio
import http
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cluster.asgi import refusal
from cluster.http_limits import limits_here


class BoundedProtocol(H11Protocol):
    """One connection, within the limits of this process (`limits_here`).

    What the client has to send next, the headers of a request or the rest of its body, has one deadline, which further
    bytes do not move.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits_here()
        self.conn = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_limit_bytes)
        self._awaited: tuple[str, object] | None = None  # "headers" or "body", and the request before or of it
        self._deadline: asyncio.TimerHandle | None = None
        self._send_deadline: asyncio.TimerHandle | None = None
        self._body_bytes = 0  # of the present request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connection_limit:
            self._refuse(503, f"the server has {self._limits.connection_limit} connections already: retry later")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._stop_send_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # In pieces, so that h11 compares headers that arrive at once with its limit before it reads them.
        size = self._limits.header_limit_bytes
        for start in range(0, len(data), size):
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            piece = data[start : start + size]
            if self.conn.their_state is h11.SEND_BODY:
                self._body_bytes += len(piece)
                if self._body_bytes > self._limits.body_limit_bytes:
                    self._refuse(413, f"the request's body is larger than {self._limits.body_limit_bytes} bytes")
                    return
            super().data_received(piece)
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_deadline()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn while it handles h11's error, which knows a better status for some requests."""
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(431, f"the request's headers have more than {self._limits.header_limit_bytes} bytes")
        else:
            self._refuse(400, "the request is not valid HTTP/1.1")

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_later()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_send_deadline()

    def _watch(self) -> None:
        """Start the clock of what the client has to send next, unless it is running."""
        awaited = self._next_awaited()
        if awaited == self._awaited:
            return
        self._stop_deadline()
        self._awaited = awaited
        if awaited is not None:
            self._body_bytes = 0
            self._start_deadline()

    def _next_awaited(self) -> tuple[str, object] | None:
        if self.transport.is_closing():
            return None
        if self.conn.their_state is h11.SEND_BODY:
            return "body", self.cycle
        # Between two requests of a connection, uvicorn's own limit counts (keep-alive).
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
            return "headers", self.cycle
        return None

    def _start_deadline(self) -> None:
        timeout_s = self._limits.body_timeout_s if self._in_body else self._limits.header_timeout_s
        self._deadline = self.loop.call_later(timeout_s, self._late)

    @property
    def _in_body(self) -> bool:
        return self._awaited is not None and self._awaited[0] == "body"

    def _late(self) -> None:
        if self._in_body and self.flow.read_paused:  # the application does not read: the client is not to blame
            self._start_deadline()
        elif self._in_body:
            self._refuse(408, f"the request's body did not arrive within {self._limits.body_timeout_s:g} seconds")
        elif self.conn.trailing_data[0]:
            self._refuse(408, f"the request's headers did not arrive within {self._limits.header_timeout_s:g} seconds")
        else:  # nothing was asked
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """End the connection with an answer, unless one to the same request has begun."""
        if not (self._in_body and self.cycle.response_started):
            headers, body = refusal(status, message)
            lines = [b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode())]
            lines += [name + b": " + value for name, value in [*headers, (b"connection", b"close")]]
            self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()
        self._stop_deadline()
        self._abort_later()

    def _abort_later(self) -> None:
        """Give the client some time to read what is left of its answer."""
        if self._send_deadline is None:
            self._send_deadline = self.loop.call_later(self._limits.send_timeout_s, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_send_deadline(self) -> None:
        if self._send_deadline is not None:
            self._send_deadline.cancel()
            self._send_deadline = None
