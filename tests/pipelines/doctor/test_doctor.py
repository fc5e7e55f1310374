"""The doctor: troubles are found, named with what to do, within bounds, and never with a secret."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.config import InlineCluster, RemoteCluster
from pipelines import cli
from pipelines.doctor import cluster_check, examination, installation, store_check
from pipelines.doctor.finding import Finding, within
from pipelines.doctor.tracking_check import check_tracking
from pipelines.store import StoreConfig
from pipelines.store.files import LocalFiles
from pipelines.tracking.tracking_config import TrackingConfig


def failures(findings: list[Finding]) -> list[Finding]:
    assert all(one.remedy for one in findings if one.state != "ok")
    return [one for one in findings if one.state == "failed"]


@pytest.fixture
def garbage() -> Iterator[Callable[[bytes], int]]:
    """Starts a server that answers every connection with some bytes, and keeps it open. Returns its port."""
    listeners: list[socket.socket] = []

    def start(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    connection.sendall(answer)
                except OSError:
                    return
                kept.append(connection)

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


def test_a_check_that_does_not_end_fails_with_what_it_has_not_found() -> None:
    def never() -> Iterator[Finding]:
        yield Finding("ok", "first")
        time.sleep(600)

    assert failures(within(0.2, "the server", never, "Restart it.")) == [
        Finding("failed", "the server did not answer within 0.2 s", "Restart it.")
    ]


def test_an_error_of_a_library_is_one_line() -> None:
    def broken() -> Iterator[Finding]:
        raise RuntimeError("first line\nsecond line")

    assert within(5, "it", broken, "Do this.") == [Finding("failed", "it: first line", "Do this.")]


def test_a_local_store_is_checked_and_left_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "store"
    [found] = store_check.check_store(StoreConfig(root=str(root)))
    assert found == Finding("ok", f"store {root}: write, read back, atomic create, rename, delete")
    assert not root.exists()
    root.mkdir()
    (root / "kept").touch()
    list(store_check.check_store(StoreConfig(root=str(root))))
    assert [path.name for path in root.iterdir()] == ["kept"]


def test_a_store_in_memory_is_checked_with_its_state_directory(tmp_path: Path) -> None:
    config = StoreConfig(root="memory://doctor/store", state_directory=str(tmp_path / "state"))
    found = list(store_check.check_store(config))
    assert [one.state for one in found] == ["ok", "ok"]
    assert "upload" in found[0].text


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    [found] = failures(list(store_check.check_store(StoreConfig(root=str(tmp_path / "file" / "store")))))
    assert "Not a directory" in found.text


def test_a_store_without_an_atomic_creation_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(self: LocalFiles, path: str, content: bytes) -> bool:
        self.write(path, content)
        return True

    monkeypatch.setattr(LocalFiles, "create", create)
    [found] = failures(list(store_check.check_store(StoreConfig(root=str(tmp_path)))))
    assert "8 of 8 could create one file" in found.text


@pytest.mark.parametrize(
    "answer", [b"", b"\xff\x00garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n<p>"]
)
def test_garbage_in_place_of_a_tracking_server_is_one_line(
    answer: bytes, garbage: Callable[[bytes], int], tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    config = TrackingConfig(kind="server", uri=f"http://127.0.0.1:{garbage(answer)}", request_timeout_s=1)
    [found] = failures(list(check_tracking(config, tmp_path, "books")))
    assert found.text.startswith("tracking server http://127.0.0.1:")
    assert "\n" not in found.text


def test_a_tracking_server_that_is_not_there_and_a_database_to_be_made(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = TrackingConfig(kind="server", uri=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        [found] = failures(list(check_tracking(config, tmp_path, "books")))
        assert "Connection refused" in found.text
    [database] = check_tracking(TrackingConfig(), tmp_path, "books")
    assert database.text.endswith("mlflow.db, which the first run makes")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"])
def test_garbage_in_place_of_a_dashboard_is_one_line(
    answer: bytes, garbage: Callable[[bytes], int], tmp_path: Path
) -> None:
    config = RemoteCluster(address=f"http://127.0.0.1:{garbage(answer)}", connect_timeout_s=1)
    [found] = failures(list(cluster_check.check_cluster(config, tmp_path)))
    assert "cluster http://127.0.0.1:" in found.text


def test_garbage_in_place_of_a_head_ends_in_time(
    garbage: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster_check, "TIMEOUT_S", 8.0)
    config = RemoteCluster(address=f"127.0.0.1:{garbage(b'garbage')}", connect_timeout_s=1)
    [found] = failures(list(cluster_check.check_cluster(config, tmp_path)))
    assert "cluster 127.0.0.1:" in found.text
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = RemoteCluster(address=f"127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.undo()
        [found] = failures(list(cluster_check.check_cluster(nowhere, tmp_path)))
    assert "Nothing answers at cluster.address" in found.text


def test_a_node_with_other_versions_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {
        "python": "3.11.7",
        "ray": "2.60.0",
        "bloomline": "0.1.0",
        "shared_memory_bytes": 1 << 30,
        "sees_state": True,
    }
    node = {"address": "10.0.0.2", "resources": {"CPU": 4.0, "memory": 1 << 30, "object_store_memory": 1 << 30}}
    config = RemoteCluster()

    def found(**facts: Any) -> str:
        answered = {**node, "facts": {**ours, **facts}, "error": ""}
        return " ".join(one.text for one in cluster_check._node(answered, ours, config) if one.state != "ok")

    assert found() == ""
    assert found(python="3.12.1") == "node 10.0.0.2 has python 3.12.1 (ours: 3.11.7)"
    assert found(bloomline="") == "node 10.0.0.2 has no bloomline (ours: 0.1.0)"
    assert found(sees_state=False) == "node 10.0.0.2 does not see the state directory of the store"
    assert found(sees_state=None) == ""
    assert "of shared memory" in found(shared_memory_bytes=64 << 20)
    [silent] = failures(list(cluster_check._node({**node, "facts": None, "error": "no answer"}, ours, config)))
    assert "no process could be started there: no answer" in silent.text


def test_broken_and_missing_modules_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fine_module.py").write_text("")
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('no library of C')")
    (tmp_path / "deadly_module.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setattr(installation, "python_path", lambda: str(tmp_path))
    names = ["fine_module", "broken_module", "deadly_module", "no_such_module", "json"]
    found = installation.import_all(names)
    assert list(found) == names
    assert "error" not in found["fine_module"]
    assert found["broken_module"]["error"] == "RuntimeError: no library of C"
    assert found["deadly_module"]["error"] == "it ended Python with signal 11"
    assert found["no_such_module"]["missing"] == "no_such_module"
    assert "version" in found["json"]
    said = [*installation._of_extra("x", [found["broken_module"], found["no_such_module"]], names)]
    assert [one.state for one in said] == ["failed", "warning"]
    assert said[1].remedy == "If you need it: pip install 'bloomline[x]'"


def test_a_small_machine_has_remedies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "OPEN_FILES", 1 << 40)
    monkeypatch.setattr(installation, "FREE_BYTES", 1 << 60)
    found = [
        *installation.check_machine(InlineCluster()),
        *installation.check_space({"the store": tmp_path / "a" / "b"}),
    ]
    troubles = [one for one in found if one.state != "ok"]
    assert not failures(found)
    assert any(one.text.startswith("open files: at most") for one in troubles)
    assert any(one.text.startswith(f"disk for the store ({tmp_path / 'a' / 'b'})") for one in troubles)


def test_the_round_has_an_exit_code_and_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("A_SECRET", "very-secret-word")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installation, "check_extras", list)
    words = ["doctor", "cluster=inline", "store.root=store", "store.options.secret=${oc.env:A_SECRET}"]
    assert cli.run(words) == 0
    assert "Nothing fails." in capsys.readouterr().out
    assert not (tmp_path / "store").exists()

    def leaking(config: StoreConfig) -> Iterator[Finding]:
        yield Finding("failed", f"refused {config.options['secret']}", "Use another than very-secret-word.")

    monkeypatch.setattr(store_check, "check_store", leaking)
    assert cli.run(words) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "very-secret-word" not in out
    assert "1 of " in out


def test_a_failed_check_says_what_to_do_on_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    examination._shown([Finding("failed", "it\nis \x1b[31m bad", "Do this."), Finding("ok", "fine", "")])
    assert capsys.readouterr().out == "  FAILED  it is �[31m bad\n          -> Do this.\n  ok      fine\n"


def test_the_help_is_shown_without_a_configuration() -> None:
    command = [sys.executable, "-P", "-m", "bloomline", "doctor", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: bloomline doctor")
