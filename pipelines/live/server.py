"""The server of the live page: on the loopback interface, read-only, with a stream of server-sent events for each page.

    /                the page: the list of runs, or with ?run=RUN&step=STEP&process=PROCESS one run
    /events?...      what the page at the same address shows: an event `part` for each part that is new to it
    /report?run=RUN  the report of a run that has ended

A stream's event ids name the parts that a page has, so that after an interruption it gets what has changed meanwhile.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup

from cluster.http_limits import HOST, LOOPBACK_NAMES
from cluster.network import LOOPBACK
from pipelines.live.watcher import View, Watcher
from pipelines.run_history import report_path
from pipelines.store import Store
from stages.base import PAGE_POLICY

PORT = 5001
BEAT_S = 5.0  # between two signs of life of a stream
RETRY_MS = 2000  # until a browser connects again
TIMEOUT_S = 10.0  # for a request to arrive, and for a browser to take what was sent
CONNECTION_LIMIT = 100
LONGEST_NAME = 500  # characters of a run, step or process
MOST_FIELDS = 10  # of an address
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
MARKS = re.compile(r"([a-z-]{1,16})=([0-9a-f]{12})")
OWN_FETCHES = ("same-origin", "none")  # of Sec-Fetch-Site: this page, and a person who typed the address
COMMON_HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@contextmanager
def serving(store: Store, port: int = 0) -> Iterator[str]:
    """Serve the live page of a store, and yield its address. `port` 0: 5001, or any that is free.

    Raises OSError if the port is taken.
    """
    watcher = Watcher(store)
    try:
        server = _listening(watcher, store, port)
    except OSError:
        watcher.close()
        raise
    thread = threading.Thread(target=server.serve_forever, name="live page", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        watcher.close()
        server.shutdown()
        server.server_close()
        thread.join()


def _listening(watcher: Watcher, store: Store, port: int) -> _Server:
    try:
        return _Server(port or PORT, watcher, store)
    except OSError:
        if port:
            raise
        return _Server(0, watcher, store)


def page(store_address: str) -> tuple[str, str]:
    """The page without its parts, and the Content-Security-Policy that lets its own script run and nothing else."""
    script = files("pipelines.live").joinpath("live.js").read_text()
    report_style = files("pipelines.report").joinpath("page.css").read_text()
    style = report_style + files("pipelines.live").joinpath("live.css").read_text()
    html = Markup(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        "<title>Runs</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        '<nav class="bar"><a href="/">All runs</a><span class="where">{store}</span></nav>\n'
        '<div id="connection" role="status"></div>\n<div id="trouble" role="status"></div>\n'
        '<div id="runs"></div>\n<div id="head"></div>\n<div class="run">\n<div id="graph-part"></div>\n<div>\n'
        '<div id="step-part"></div>\n<div id="curves"></div>\n<div id="log"></div>\n</div>\n</div>\n'
        "<noscript><p>This page needs JavaScript. <code>bloomline runs</code> shows the same.</p></noscript>\n"
        "</main>\n<script>{script}</script>\n</body>\n</html>\n"
    ).format(style=Markup(style), script=Markup(script), store=store_address)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return str(html), policy


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, watcher: Watcher, store: Store) -> None:
        super().__init__((LOOPBACK, port), _Request)
        self.watcher = watcher
        self.store = store
        self.page, self.policy = page(store.uri_of_root)
        self._free = threading.BoundedSemaphore(CONNECTION_LIMIT)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has closed its connection caused no error that somebody has to know of."""


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT_S
    server_version = "bloomline"
    sys_version = ""

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").lower()
        named = HOST.fullmatch(host)
        if named is None or named["name"] not in LOOPBACK_NAMES:
            return self._answer(421, f"{host[:200]!r} is not a name of this server: use localhost")
        try:
            address = urlsplit(self.path)
            fields = parse_qs(address.query, max_num_fields=MOST_FIELDS)
        except ValueError as error:
            return self._answer(400, f"This address can't be read: {error}")
        query = {name: values[0][:LONGEST_NAME] for name, values in fields.items()}
        view = View(query.get("run", ""), query.get("step", ""), query.get("process", ""))
        if view.run and not RUN_ID.fullmatch(view.run):
            return self._answer(404, f"{view.run!r} is not the id of a run")
        if address.path == "/":
            return self._answer(200, self.server.page, "text/html", self.server.policy)
        if address.path == "/events":
            return self._stream(view)
        if address.path == "/report" and view.run:
            return self._report(view.run)
        return self._answer(404, "There is no such page here: the list of runs is at /")

    def _stream(self, view: View) -> None:
        if self.headers.get("Sec-Fetch-Site", "none") not in OWN_FETCHES:
            return self._answer(403, "only the live page itself may ask for this")
        watcher = self.server.watcher
        marks = dict(MARKS.findall(self.headers.get("Last-Event-ID", "")))
        self._head(200, "text/event-stream", "default-src 'none'")
        self.wfile.write(f"retry: {RETRY_MS}\n\n".encode())
        with watcher.watching(view):
            while not watcher.closed:
                news = watcher.news(view, marks, BEAT_S)
                for name, part in news.items():
                    marks[name] = part.mark
                    known = ",".join(f"{one}={mark}" for one, mark in marks.items())
                    data = json.dumps({"name": name, "html": part.html})
                    self.wfile.write(f"id: {known}\nevent: part\ndata: {data}\n\n".encode())
                if not news:
                    self.wfile.write(b"event: beat\ndata:\n\n")
        return None

    def _report(self, run_id: str) -> None:
        try:
            content = self.server.store.files.read(report_path(run_id))
        except OSError as error:
            return self._answer(503, f"The store does not answer: {error}")
        if content is None:
            return self._answer(404, f"The store has no report of run {run_id}.")
        return self._answer(200, content, "text/html", f"{PAGE_POLICY}; sandbox")

    def _answer(
        self, status: int, content: str | bytes, kind: str = "text/plain", policy: str = "default-src 'none'"
    ) -> None:
        body = content.encode(errors="replace") if isinstance(content, str) else content
        self._head(status, kind, policy, len(body))
        self.wfile.write(body)

    def _head(self, status: int, kind: str, policy: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Security-Policy", policy)
        for name, value in COMMON_HEADERS.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not printed."""
