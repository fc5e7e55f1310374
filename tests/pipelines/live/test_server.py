"""The live page: what it serves to whom, over real connections, from a directory and from an object store."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipelines import run_history
from pipelines.live import fragments, server, watcher
from pipelines.live.server import serving
from pipelines.report.page import render
from pipelines.run_history import History, report_path
from pipelines.store import Store, StoreConfig
from tests.pipelines import samples
from tests.pipelines.live.browser import browsing
from tests.pipelines.live.support import RUN, Going, get, streaming


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers write often, and the page looks often."""
    monkeypatch.setattr("pipelines.run_history.SAVE_INTERVAL_S", 0.02)
    for name in ("LOCAL_INTERVAL_S", "REMOTE_INTERVAL_S", "ENDED_INTERVAL_S"):
        monkeypatch.setattr(watcher, name, 0.05)
    monkeypatch.setattr(server, "BEAT_S", 0.2)


@pytest.fixture
def going(any_store: Store, tmp_path: Path) -> Iterator[Going]:
    run = Going(any_store, tmp_path)
    yield run
    run.history.close()


@pytest.fixture(params=["directory", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return Store(StoreConfig(root=str(tmp_path / "store")))
    store: Store = request.getfixturevalue("s3_store")
    return store


@pytest.fixture
def local(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return Store(StoreConfig(root=str(tmp_path / "store")))


def test_a_run_is_seen_in_progress_and_after_its_end(going: Going) -> None:
    going.train(20)
    going.print("\x1b[32mgreen\x1b[0m <script>alert(1)</script>\n")
    going.print("of rank 1\n", "rank-1")
    with serving(going.store) as address, streaming(address, f"?run={RUN}") as stream:
        parts = stream.until(lambda parts: "training loss: 0" in parts["curves"] and "green" in parts["log"])
        assert "demo &lt;b&gt;·&lt;/b&gt; size=3" in parts["head"]
        assert "running" in parts["head"]
        assert f'href="/?run={RUN}&amp;step=pretrain"' in parts["graph-part"]
        assert "pretrain <span" in parts["step-part"]  # the step that runs
        assert "green &lt;script&gt;alert(1)&lt;/script&gt;" in parts["log"]
        assert f'href="/?run={RUN}&amp;step=pretrain&amp;process=rank-1"' in parts["log"]
        going.train(30)
        going.print("more\n")
        parts = stream.until(lambda parts: " at 29" in parts["curves"] and "more" in parts["log"])
        with streaming(address, f"?run={RUN}&step=pretrain&process=rank-1") as other:
            assert "of rank 1" in other.until(lambda parts: "log" in parts)["log"]
        going.end()
        parts = stream.until(lambda parts: "badge done" in parts["head"])
        assert "/report?run=" in parts["head"]


def test_the_list_shows_runs_in_progress_first_and_reports_of_the_others(going: Going, tmp_path: Path) -> None:
    ended = samples.run(tmp_path, "20260202-000000-bbbb")
    samples.replay(History(going.store), ended)
    going.store.files.write(report_path(ended.run_id), render(ended).encode())
    with serving(going.store) as address:
        with streaming(address) as stream:
            listed = stream.until(lambda parts: "1 in progress, 1 ended" in parts["runs"])["runs"]
            assert listed.index(RUN) < listed.index(ended.run_id)
            assert "1 of 4" in listed
            assert f'href="/report?run={ended.run_id}"' in listed
            going.end()
            stream.until(lambda parts: "0 in progress, 2 ended" in parts["runs"])
            going.store.files.remove(f"runs/{RUN}")
            stream.until(lambda parts: "0 in progress, 1 ended" in parts["runs"])
        status, headers, body = get(address, f"/report?run={ended.run_id}")
        assert (status, body) == (200, render(ended))
        assert headers["Content-Security-Policy"].endswith("; sandbox")
        assert get(address, f"/report?run={RUN}")[0] == 404


def test_after_an_interruption_only_what_changed_is_sent(local: Store, tmp_path: Path) -> None:
    going = Going(local, tmp_path)
    going.print("one\n")
    going.end()
    with serving(local) as address:
        with streaming(address, f"?run={RUN}") as stream:
            stream.until(lambda parts: len(parts) == 6)
        going.print("two\n")
        with streaming(address, f"?run={RUN}&step=pretrain", stream.last_id) as again:
            again.until(lambda parts: "two" in parts["log"])
            assert "head" not in again.received
            assert "trouble" not in again.received


def test_many_pages_are_served_by_one_reader_and_none_reads_without_them(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.replay(History(local), samples.run(tmp_path, RUN))
    monkeypatch.setattr(watcher, "ENDED_INTERVAL_S", 1000.0)
    reads: list[str] = []
    read = local.files.read
    monkeypatch.setattr(local.files, "read", lambda path: reads.append(path) or read(path))  # type: ignore[func-returns-value]
    with serving(local) as address:
        assert reads == []
        with (
            streaming(address, f"?run={RUN}") as one,
            streaming(address, f"?run={RUN}") as two,
            streaming(address, f"?run={RUN}") as three,
        ):
            for stream in (one, two, three):
                stream.until(lambda parts: "log" in parts)
            assert reads.count(f"runs/{RUN}/run.json") == 1


def test_a_store_that_hangs_is_named_while_the_page_keeps_what_it_had(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.replay(History(local), samples.run(tmp_path, RUN))
    monkeypatch.setattr(watcher, "STALL_S", 0.2)
    answers = threading.Event()
    with serving(local) as address, streaming(address) as stream:
        stream.until(lambda parts: RUN in parts["runs"] and "trouble" in parts and not parts["trouble"])
        names = local.files.names
        monkeypatch.setattr(local.files, "names", lambda directory: [answers.wait(60), *names(directory)][1:])
        parts = stream.until(lambda parts: bool(parts["trouble"]))
        assert "The store has not answered since " in parts["trouble"]
        assert "This page shows what was there before." in parts["trouble"]
        assert RUN in parts["runs"]
        answers.set()
        stream.until(lambda parts: not parts["trouble"])


def test_the_metrics_of_a_step_stand_in_groups(tmp_path: Path) -> None:
    metrics = {
        "validation_loss": 2.5,
        "memory_weights_bytes": 3 * 2.0**20,
        "seconds_data": 0.004,
        "odd": 1.0,
        "loss": 3.0,
    }
    metrics |= {f"memory_part_{number}_bytes": 1024.0 for number in range(8)}
    run = samples.run(tmp_path, RUN)
    step = replace(run.steps[1], metrics=metrics)
    record = run_history.record_of(run, {"pretrain": step}, {})
    html = str(fragments.step_head(record, record.steps[0]))
    first, memory, speed = (html.index(one) for one in ('<dl class="metrics">', "<h4>memory</h4>", "<h4>speed</h4>"))
    assert first < html.index("<dt>validation loss</dt><dd>2.5</dd>") < html.index("<dt>odd</dt>") < memory < speed
    assert memory < html.index("<dt>memory weights</dt><dd>3.0 MiB</dd>") < speed
    assert speed < html.index("<dt>data time</dt><dd>4 ms</dd>")


def test_a_store_that_is_away_is_named_until_it_is_back(local: Store, tmp_path: Path) -> None:
    samples.replay(History(local), samples.run(tmp_path, RUN))
    with serving(local) as address, streaming(address) as stream:
        stream.until(lambda parts: RUN in parts["runs"] and "trouble" in parts and not parts["trouble"])
        os.rename(tmp_path / "store", tmp_path / "elsewhere")
        parts = stream.until(lambda parts: bool(parts["trouble"]))
        assert f"There is no directory {tmp_path / 'store'}" in parts["trouble"]
        assert RUN in parts["runs"]
        os.rename(tmp_path / "elsewhere", tmp_path / "store")
        stream.until(lambda parts: parts["trouble"] == "")


def test_a_run_whose_driver_was_killed_has_stopped(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = Going(local, tmp_path).history
    try:
        with serving(local) as address, streaming(address, f"?run={RUN}") as stream:
            stream.until(lambda parts: "badge running" in parts["head"])
            monkeypatch.setattr("pipelines.run_history.is_gone", lambda driver: True)
            parts = stream.until(lambda parts: "stopped without an end" in parts["head"])
            stream.until(lambda parts: "badge stopped" in parts["step-part"])
            assert "The same command continues the run" in parts["head"]
    finally:
        history.close()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_foreign_host_name_is_refused(local: Store, host: str) -> None:
    with serving(local) as address:
        assert get(address, "/", {"Host": host})[0] == 421
        assert get(address, "/events", {"Host": host})[0] == 421
        assert get(address, "/", {"Host": f"localhost:{urlsplit(address).port}"})[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/other",
        "/../etc/passwd",
        "/report",
        "/report?run=../../secret",
        "/events?run=../x",
        "/?run=a%2Fb",
        "/events?run=%00",
        "/report?run=20260101-000000-none",
    ],
)
def test_what_does_not_exist_is_not_found(local: Store, path: str) -> None:
    (local.config.local_root.parent / "secret").mkdir()
    (local.config.local_root.parent / "secret" / "report.html").write_text("secret")
    with serving(local) as address:
        status, headers, body = get(address, path)
    assert status == 404
    assert "secret\n" not in body
    assert headers["Content-Security-Policy"] == "default-src 'none'"
    assert headers["Content-Type"].startswith("text/plain")


def test_pages_of_others_and_writing_requests_get_nothing(local: Store) -> None:
    with serving(local) as address:
        assert get(address, "/events", {"Sec-Fetch-Site": "cross-site"})[0] == 403
        assert get(address, "/?" + "&".join(f"a{number}=1" for number in range(50)))[0] == 400
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port)) as raw:
                raw.sendall(f"{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
                assert b" 501 " in raw.recv(100)


def test_the_policy_of_the_page_allows_its_own_script_only(local: Store) -> None:
    with serving(local) as address:
        status, headers, body = get(address, "/")
    policy = headers["Content-Security-Policy"]
    assert status == 200
    assert "default-src 'none'; script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert body.count("<script>") == 1
    assert "http://" not in body
    assert "https://" not in body


def test_more_connections_than_the_limit_are_closed(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTION_LIMIT", 1)
    with serving(local) as address:
        with streaming(address) as stream:
            stream.until(lambda parts: "runs" in parts)
            with pytest.raises(OSError):
                get(address, "/")
        while True:  # the place is free again as soon as the server has seen the end
            try:
                assert get(address, "/")[0] == 200
                break
            except OSError:
                continue


@pytest.mark.slow
def test_a_browser_shows_states_and_curves_as_they_change(local: Store, tmp_path: Path) -> None:
    going = Going(local, tmp_path)
    going.train(10)
    going.print("<img src=x onerror=document.title='hacked'>\n")
    points = "document.querySelector('#curves polyline')?.getAttribute('points').split(' ').length"
    try:
        with serving(local) as address, browsing(f"{address}/?run={RUN}", tmp_path) as page:
            page.wait_for(f"{points} === 10 && document.querySelector('pre.log') !== null")
            assert page.value("document.querySelectorAll('#graph-part g.running').length") == 1
            assert page.value("document.title") == "demo <b>·</b> size=3 running"
            going.train(25)
            page.wait_for(f"{points} === 25")
            going.end()
            page.wait_for("document.querySelectorAll('#graph-part g.done').length === 4")
            page.wait_for("document.title === 'demo <b>·</b> size=3 done'")
            assert page.value("document.querySelectorAll('#log img, #head b').length") == 0
    finally:
        going.history.close()
