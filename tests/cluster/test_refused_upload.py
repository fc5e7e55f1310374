"""A dashboard, or a proxy in front of it, that takes no request of the size of an upload."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
from pydantic import ValidationError

from cluster import jobs
from cluster.base import ClusterError
from cluster.config import LARGEST_UPLOAD_BYTES, RemoteCluster


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = {"version": "4", "ray_version": ray.__version__, "ray_commit": "c0ffee", "session_name": "s"}
        self._answer(*((200, json.dumps(known)) if "version" in self.path else (404, "no such package")))

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(413, "Maximum request body size exceeded")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_upload_that_is_refused_as_too_large_says_what_to_do(address: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(ClusterError) as refused:
        jobs.submit(RemoteCluster(address=address), [], directory=tmp_path)
    said = str(refused.value)
    assert said.startswith(f"The Ray cluster at {address} did not accept the job: ")
    assert "takes no request of that size (status 413). Send less" in said


def test_the_limit_of_an_upload_is_that_of_rays_dashboard() -> None:
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    assert LARGEST_UPLOAD_BYTES == DASHBOARD_CLIENT_MAX_SIZE == RemoteCluster().upload_limit_bytes
    with pytest.raises(ValidationError, match="less than or equal to 104857600"):
        RemoteCluster(upload_limit_bytes=LARGEST_UPLOAD_BYTES + 1)
