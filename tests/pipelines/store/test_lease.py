"""Leases: one holder at a time, and a dead one does not block for ever."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.process_identity import is_gone, this_process
from pipelines.store.files import Files, LocalFiles, RemoteFiles
from pipelines.store.lease import Leases

FINGERPRINT = "a" * 64


@pytest.fixture(params=["directory", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return LocalFiles(tmp_path) if request.param == "directory" else RemoteFiles(f"memory://{tmp_path.name}", {})


def test_one_holder_at_a_time(files: Files) -> None:
    one, other = Leases(files, 30, "one"), Leases(files, 30, "other")
    assert one.acquire(FINGERPRINT) is None
    assert one.acquire(FINGERPRINT) is None
    assert "run one" in (other.acquire(FINGERPRINT) or "")
    one.release(FINGERPRINT)
    assert other.acquire(FINGERPRINT) is None
    assert "run other" in (one.acquire(FINGERPRINT) or "")
    other.close()
    assert one.acquire(FINGERPRINT) is None
    one.close()


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    leases = [Leases(LocalFiles(tmp_path), 30, str(number)) for number in range(16)]
    got: list[int] = []
    barrier = threading.Barrier(len(leases))

    def take(number: int) -> None:
        barrier.wait()
        if leases[number].acquire(FINGERPRINT) is None:
            got.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_a_killed_process_of_this_machine_does_not_block(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pipelines.store.lease import Leases; from pipelines.store.files import LocalFiles;"
        "from pathlib import Path; l = Leases(LocalFiles(Path(sys.argv[1])), 30, 'dead');"
        f"assert l.acquire({FINGERPRINT!r}) is None; print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    leases = Leases(LocalFiles(tmp_path), 30, "next")
    assert "run dead" in (leases.acquire(FINGERPRINT) or "")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert leases.acquire(FINGERPRINT) is None
    leases.close()


def test_a_silent_holder_elsewhere_is_given_up_after_the_timeout(files: Files) -> None:
    content = json.dumps({"holder": "x", "run": "far", "host": "elsewhere/1", "pid": 1, "started": 1.0})
    assert files.create(f"leases/{FINGERPRINT}.json", content.encode())
    leases = Leases(files, 1.5, "near")
    assert leases.acquire(FINGERPRINT) is not None
    time.sleep(0.1)
    assert leases.acquire(FINGERPRINT) is not None
    time.sleep(1.6)
    assert leases.acquire(FINGERPRINT) is None
    leases.close()


def test_a_heartbeat_keeps_it(files: Files) -> None:
    holder = Leases(files, 2.0, "holder")
    holder._holder["host"] = "elsewhere/1"  # as seen from another machine: only the heartbeat tells
    assert holder.acquire(FINGERPRINT) is None
    waiter = Leases(files, 2.0, "waiter")
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        assert waiter.acquire(FINGERPRINT) is not None
        time.sleep(0.1)
    holder.close()
    assert waiter.acquire(FINGERPRINT) is None
    waiter.close()


def test_what_another_took_over_from_one_that_slept_is_not_taken_back(files: Files) -> None:
    slept = Leases(files, 0.1, "slept")
    assert slept.acquire(FINGERPRINT) is None
    other = json.dumps({"holder": "other"}).encode()
    files.write(f"leases/{FINGERPRINT}.json", other)
    time.sleep(0.2)  # ten heartbeats
    slept.close()
    assert files.read(f"leases/{FINGERPRINT}.json") == other


@pytest.mark.parametrize("garbage", [b"", b"[]", b"garbage", b'{"pid": "x"}'])
def test_a_garbage_lease_blocks_no_longer_than_the_timeout(files: Files, garbage: bytes) -> None:
    files.create(f"leases/{FINGERPRINT}.json", garbage)
    leases = Leases(files, 0.1, "run")
    leases.acquire(FINGERPRINT)
    time.sleep(0.2)
    assert leases.acquire(FINGERPRINT) is None
    leases.close()


def test_processes_are_distinguished() -> None:
    assert not is_gone(this_process())
    assert is_gone({**this_process(), "started": this_process()["started"] - 100})
    assert is_gone({**this_process(), "pid": 2**22 + 1})
    assert not is_gone({**this_process(), "host": "elsewhere/1"})
    assert not is_gone({})
