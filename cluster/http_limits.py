"""Which requests a server accepts by their headers, and how the limits reach the server's process.

The limits on what arrives before a request has all of its headers are those of `cluster.http_protocol`.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
from typing import Any

from cluster.asgi import refuse
from cluster.config import HttpLimits

VARIABLE = "BLOOMLINE_HTTP_LIMITS"  # a JSON object with fields of HttpLimits
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d{1,5})?")
LINE_BYTES = 4  # of a header, in addition to its name and value: ": " and the end of the line


def environment(limits: HttpLimits) -> dict[str, str]:
    """The environment of a server's process with these limits."""
    return {VARIABLE: limits.model_dump_json()}


@functools.cache
def limits_here() -> HttpLimits:
    """The limits of the servers in this process. Raises pydantic's ValidationError."""
    return HttpLimits.model_validate_json(os.environ.get(VARIABLE) or "{}")


class HeaderChecks:
    """Refuses requests whose headers are too many or too large, whose body would be too large, and requests to a name
    that is not this machine's loopback interface although they arrived there.

    The last is how a page in a browser reaches a local server: its own host name resolves to 127.0.0.1 ("DNS
    rebinding"), so that the browser takes the server for the page's origin.
    """

    def __init__(self, app: Any, limits: HttpLimits | None = None) -> None:
        self._app = app
        self._limits = limits or limits_here()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = self._refused(scope) if scope["type"] in ("http", "websocket") else None
        if found is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refuse(send, *found, [(b"connection", b"close")])

    def _refused(self, scope: Any) -> tuple[int, str] | None:
        """The status and the message with which a request is refused."""
        limits, headers = self._limits, scope["headers"]
        if len(headers) > limits.header_count_limit:
            return 431, f"the request has {len(headers)} headers, more than {limits.header_count_limit}"
        size = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        size += sum(len(name) + len(value) + LINE_BYTES for name, value in headers)
        if size > limits.header_limit_bytes:
            return 431, f"the request's headers have {size} bytes, more than {limits.header_limit_bytes}"
        values = dict(headers)
        length = values.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > limits.body_limit_bytes:
            return 413, f"the request's body is larger than {limits.body_limit_bytes} bytes"
        host = values.get(b"host", b"").decode("latin-1").lower()
        if _is_loopback(scope.get("server")) and not self._is_known(host):
            return 421, f"{host[:200]!r} is not a name of this server: use localhost, or add it to http.host_names"
        return None

    def _is_known(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        return found is not None and found["name"] in (*LOOPBACK_NAMES, *map(str.lower, self._limits.host_names))


def _is_loopback(server: tuple[str, int | None] | None) -> bool:
    """Whether an address of this machine, at which a request arrived, is one of the loopback interface."""
    try:
        return server is not None and ipaddress.ip_address(server[0]).is_loopback
    except ValueError:
        return False
