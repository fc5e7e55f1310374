"""A remote store that is out of reach for a while is asked again; one that refuses is not."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines import redaction
from pipelines.store import files
from pipelines.store.files import RemoteFiles, StoreError
from pipelines.store.lease import Leases
from pipelines.store.retry import is_temporary


class Interrupted(MemoryFileSystem):  # type: ignore[misc]
    """Files in memory behind a network. The next `failures` calls raise `error`."""

    protocol = "interrupted"
    cachable = False
    failures: ClassVar[int] = 0
    after_writing: ClassVar[bool] = False  # whether the failing call has its effect: only its answer is lost
    error: ClassVar[Exception] = ConnectionError("connection reset")

    @classmethod
    def _fail(cls) -> None:
        if cls.failures:
            cls.failures -= 1
            raise cls.error

    def cat_file(self, *words: Any, **options: Any) -> Any:
        self._fail()
        return super().cat_file(*words, **options)

    def pipe_file(self, *words: Any, **options: Any) -> Any:
        if self.failures and self.after_writing:
            super().pipe_file(*words, **options)
        self._fail()
        return super().pipe_file(*words, **options)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(files, "FIRST_PAUSE_S", 0.001)
    fsspec.register_implementation("interrupted", Interrupted, clobber=True)
    Interrupted.failures, Interrupted.after_writing = 0, False
    Interrupted.error = ConnectionError("connection reset")
    yield
    Interrupted.failures = 0


def store(tmp_path: Path, **options: Any) -> RemoteFiles:
    return RemoteFiles(f"interrupted://{tmp_path.name}", {}, **options)


def test_a_store_that_answered_is_asked_again(tmp_path: Path) -> None:
    remote = store(tmp_path, retry_s=30)
    remote.write("a", b"1")
    Interrupted.failures = 5
    assert remote.read("a") == b"1"
    Interrupted.failures = 5
    remote.write("a", b"2")
    Interrupted.failures = 5
    source = tmp_path / "artifact"
    source.mkdir()
    (source / "file").write_bytes(b"3")
    remote.put(source, "b")
    assert (remote.read("a"), remote.read("b/file")) == (b"2", b"3")
    another = store(tmp_path, retry_s=30, answered=True)  # another process
    Interrupted.failures = 5
    assert another.read("a") == b"2"


def test_a_store_that_never_answered_is_refused_at_once(tmp_path: Path) -> None:
    remote = store(tmp_path, retry_s=30)
    Interrupted.failures = 2
    with pytest.raises(StoreError, match="can't read a"):
        remote.read("a")
    assert Interrupted.failures == 1


def test_the_time_is_bounded_and_named(tmp_path: Path) -> None:
    remote = store(tmp_path, retry_s=0.05, answered=True)
    Interrupted.failures = 10**9
    with pytest.raises(StoreError, match=r"tried for 0 s\).*store\.retry_s"):
        remote.read("a")


def test_an_outage_is_said_once(tmp_path: Path) -> None:
    remote = store(tmp_path, retry_s=30, answered=True)
    said: list[str] = []
    remote.tell = said.append
    remote.write("a", b"1")
    assert said == []
    Interrupted.failures = 4
    remote.read("a")
    where = f"The store at interrupted://{tmp_path.name}"
    wanted = [f"{where} does not answer, and is tried for up to 30 s: connection reset", f"{where} answers again."]
    assert said == wanted
    Interrupted.failures = 1
    remote.read("a")
    assert said == wanted * 2


def test_a_hurried_run_does_not_wait(tmp_path: Path) -> None:
    remote = store(tmp_path, retry_s=3600, answered=True)
    Interrupted.failures = 10**9
    threading.Timer(0.1, remote.hurry).start()
    with pytest.raises(StoreError, match="can't read a"):
        remote.read("a")
    left = Interrupted.failures
    with pytest.raises(StoreError, match="can't write b: it does not answer"):
        remote.write("b", b"1")
    assert Interrupted.failures == left  # it was not even asked


def test_a_hurried_run_uses_a_store_that_answers(tmp_path: Path) -> None:
    remote = store(tmp_path, retry_s=3600, answered=True)
    remote.hurry()
    remote.write("a", b"1")
    assert remote.read("a") == b"1"


def test_an_outage_shows_no_value_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://inner.example:9000")
    redaction.remember({"endpoint": "http://inner.example:9000"}, {"endpoint": "${oc.env:AWS_ENDPOINT_URL}"})
    remote = store(tmp_path, retry_s=30, answered=True)
    said: list[str] = []
    remote.tell = said.append
    Interrupted.failures, Interrupted.error = 1, ConnectionError("can't connect to http://inner.example:9000/team")
    remote.read("a")
    assert said[0].endswith("is tried for up to 30 s: can't connect to ${oc.env:AWS_ENDPOINT_URL}/team")


def test_a_refusal_is_not_repeated(tmp_path: Path) -> None:
    remote = store(tmp_path, retry_s=30, answered=True)
    Interrupted.failures, Interrupted.error = 2, PermissionError("the key may not read")
    with pytest.raises(StoreError, match="may not read"):
        remote.read("a")
    assert Interrupted.failures == 1


def test_a_file_whose_creation_was_not_confirmed_is_ours(tmp_path: Path) -> None:
    remote = store(tmp_path, retry_s=30, answered=True)
    Interrupted.failures, Interrupted.after_writing = 1, True
    assert remote.create("lease", b"ours")
    assert not remote.create("lease", b"another's")


class Answer(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class HTTPClientError(Exception):
    """Named as botocore's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (HTTPClientError(), True),
        (OSError(errno.EBUSY, "SlowDown"), True),
        (Answer(503), True),
        (Answer(429), True),
        (Answer(403), False),
        (Answer(400), False),
        (PermissionError(), False),
        (OSError(errno.ENOSPC, "disk full"), False),
        (ImportError("s3fs"), False),
        (ValueError("bucket name"), False),
    ],
)
def test_which_errors_are_temporary(error: Exception, expected: bool) -> None:
    assert is_temporary(error) == expected
    translated = OSError(errno.EIO, "as s3fs translates it")
    translated.__cause__ = error if isinstance(error, Answer) else None
    assert is_temporary(translated) == (expected or not isinstance(error, Answer))


def test_a_holder_is_not_given_up_while_the_store_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage the heartbeat is old for every waiter, whoever holds the lease."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    remote = RemoteFiles(f"memory://{tmp_path.name}", {})
    remote.create("leases/f.json", b'{"holder": "x", "host": "elsewhere", "pid": 1, "started": 0, "beat": 1}')
    waiter = Leases(remote, 30, "waiter")

    def look(at: float) -> bool:
        now[0] = at
        return waiter.acquire("f") is None

    assert not look(0)
    assert not look(1)
    assert not look(60)  # the reading took a minute
    assert not any(look(61 + second) for second in range(28))
    assert any(look(89 + second) for second in range(4))
    waiter.close()


def test_missing_credentials_of_s3_are_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    said = r"there are no credentials\. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    with pytest.raises(StoreError, match=said):
        RemoteFiles("s3://bucket/prefix", {}).read("records/x.json")


def test_a_missing_library_of_an_object_store_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    classes = import_module("fsspec.registry")  # `fsspec.registry` is a mapping in it

    monkeypatch.delitem(classes._registry, "s3", raising=False)
    with pytest.raises(StoreError, match=r"'s3fs' is not installed\. Install it with: pip install 'bloomline\[s3\]'"):
        RemoteFiles("s3://bucket/prefix", {})
