"""Pieces of work for the executors' tests: defined at module level, so that they are pickled by name."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cluster.base import Gang, Items, Launcher, Message, Send
from stages.base import Rank, Resources, StageError, Stopped

DEADLINE_S = 180.0  # longer than a test waits, so that work that is not stopped fails its test


def send_metrics(count: int, launcher: Launcher, send: Send) -> int:
    """Send `count` metrics."""
    for index in range(count):
        send(Message("step", "metrics", {"at": index}))
    return count


def process(launcher: Launcher, send: Send) -> dict[str, Any]:
    """Facts about the process that the work runs in."""
    return {"pid": os.getpid(), **{name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}}


def fail(error: BaseException, launcher: Launcher, send: Send) -> None:
    raise error


def refuse(text: str, launcher: Launcher, send: Send) -> None:
    raise StageError(text)


def unreadable(launcher: Launcher, send: Send) -> Any:
    """Return a result that can't be pickled."""
    return (item for item in [0])


def send_pid_and_wait(launcher: Launcher, send: Send) -> None:
    """Send the process id, then wait to be stopped."""
    send(Message("step", "note", {"pid": os.getpid()}))
    wait_for_stop(send)


def report_and_end_soon(launcher: Launcher, send: Send) -> None:
    send(Message("step", "note", {"text": "soon"}))
    time.sleep(0.5)


def wait_for_stop(send: Any) -> None:
    end = time.monotonic() + DEADLINE_S
    while not send.stopping():
        if time.monotonic() > end:
            raise TimeoutError("this work was not stopped")
        time.sleep(0.01)
    raise Stopped


def gang(function: Any, arguments: tuple[Any, ...], ranks: int, restarts: int, launcher: Launcher, send: Send) -> Any:
    """Run a gang with one CPU per rank."""
    return elastic_gang(function, arguments, ranks, ranks, restarts, launcher, send)


def elastic_gang(
    function: Any, arguments: tuple[Any, ...], ranks: int, least: int, restarts: int, launcher: Launcher, send: Send
) -> Any:
    """The same, with fallback sizes down to `least`."""
    one = Resources(cpus=1)
    fewer = dict.fromkeys(range(least, ranks), one)
    return launcher.gang("step", Gang(function, arguments, ranks, one, fewer, restarts), send)


# -- functions of ranks ---------------------------------------------------------------------------------------------


def assignment(rank: Rank) -> dict[str, Any]:
    return {
        "index": rank.index,
        "size": rank.size,
        "local_index": rank.local_index,
        "rendezvous": rank.rendezvous,
        "uses_gpu": rank.uses_gpu,
        "pid": os.getpid(),
        "visible": os.environ["CUDA_VISIBLE_DEVICES"],
        "threads": os.environ["OMP_NUM_THREADS"],
    }


def report(rank: Rank, count: int) -> None:
    for index in range(count):
        rank.reporter.progress(index, count, "steps")
        rank.reporter.metrics({f"rank{rank.index}": index}, step=index)
    rank.reporter.note(f"rank {rank.index} ends")


def die_once(rank: Rank, directory: str) -> tuple[int, int]:
    """Rank 1 of the first gang is killed; the ranks of the second return the number of earlier starts."""
    progress = Path(directory) / f"rank{rank.index}"
    began = int(progress.read_text()) if progress.exists() else 0
    progress.write_text(str(began + 1))
    if began == 0:
        end = time.monotonic() + DEADLINE_S
        while len(list(Path(directory).iterdir())) < rank.size and time.monotonic() < end:
            time.sleep(0.01)
        if rank.index == 1:
            os.kill(os.getpid(), 9)
        time.sleep(0.3)
        raise ConnectionError("connection closed by peer")  # as a collective fails before the death is known
    return rank.index, began


def die(rank: Rank) -> None:
    os.kill(os.getpid(), 9)


def fail_on(rank: Rank, index: int, refusal: bool) -> None:
    """One rank fails; the others wait for it, as in a collective."""
    if rank.index == index:
        raise StageError("a clear refusal") if refusal else ValueError("a fault")
    time.sleep(DEADLINE_S)


def stop_when_asked(rank: Rank) -> None:
    rank.reporter.note(str(os.getpid()))
    wait_for_stop(rank.reporter)


def hang(rank: Rank) -> None:
    """A rank that never checks for a stop request."""
    rank.reporter.note(str(os.getpid()))
    time.sleep(DEADLINE_S)


def hang_in_collective(rank: Rank) -> None:
    """Rank 1 hangs during an exchange."""
    import torch

    from stages.parallel.process_group import process_group

    with process_group(rank, 5) as collectives:
        collectives.start_exchange([torch.zeros(128)], [1, 1], slice(0, 64))()
        if rank.index == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(DEADLINE_S)  # the signal may arrive at another thread first
        collectives.start_exchange([torch.zeros(128)], [1, 1], slice(0, 64))()


def rendezvous_at_a_bound_port(rank: Rank) -> float:
    """The sum of all ranks' numbers, computed after an attempt to bind the rendezvous port again has failed."""
    import torch

    from stages.parallel.process_group import process_group

    port = urlsplit(rank.rendezvous).port
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    time.sleep(0.5 * (1 - rank.index))  # the other rank connects before this one listens
    with process_group(rank, 30) as collectives:
        return float(collectives.all_reduce(torch.tensor(float(rank.index + 1))))


# -- functions of items ---------------------------------------------------------------------------------------------


def parallel_map(function: Any, items: list[Any], workers: int, retries: int, launcher: Launcher, send: Send) -> Any:
    """Every (index, result) of a map, in the order of arrival."""
    return list(launcher.map("step", Items(function, items, workers, max_retries=retries), send))


def first_of(items: list[Any], launcher: Launcher, send: Send) -> Any:
    """Take one result of a map, then close it."""
    found = launcher.map("step", Items(stay, items, workers=2, max_retries=0), send)
    first = next(found)
    found.close()  # type: ignore[attr-defined]
    return first


def square(item: int) -> int:
    return item * item


def wait_for_another(item: str) -> int:
    """Wait until another item is in flight too, and return the process id."""
    folder, number = item.rsplit("/", 1)
    Path(folder, number).touch()
    end = time.monotonic() + DEADLINE_S
    while len(list(Path(folder).iterdir())) < 2:
        if time.monotonic() > end:
            raise TimeoutError("no other item was started")
        time.sleep(0.01)
    return os.getpid()


def count_in_flight(item: str) -> int:
    """The number of items in flight, this one included."""
    mark = Path(item)
    mark.touch()
    time.sleep(0.2)
    count = len(list(mark.parent.iterdir()))
    mark.unlink()
    return count


def killed_at_first(item: str) -> int:
    """Dies the first time, after leaving a mark. Returns whether there is a mark."""
    mark = Path(item)
    if mark.name.startswith("dies") and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return int(mark.exists())


def always_killed(item: int) -> None:
    os.kill(os.getpid(), 9)


def refuse_item(item: int) -> int:
    if item == 2:
        raise StageError("item 2 is garbage")
    if item == 3:
        raise ValueError("a fault")
    return item


def stay(item: str) -> str:
    """The first item ends as soon as another has written its process id; the others keep running."""
    if Path(item).name != "0":
        Path(item).write_text(str(os.getpid()))
        time.sleep(DEADLINE_S)
    end = time.monotonic() + DEADLINE_S
    while not any(path.read_text() for path in Path(item).parent.iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
    return item


def large_workers(launcher: Launcher, send: Send) -> Any:
    """A map whose workers need more than any node has."""
    return list(launcher.map("step", Items(square, [1], resources=Resources(cpus=3)), send))
