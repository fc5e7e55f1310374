"""Live progress over shards: bytes of all sources, the speed, and the share of each source that is done.

A worker writes its progress into a small file in a folder next to its output, which every node sees. The step's own
process reads these files about once a second.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from stages.base import Reporter
from stages.corpus.ingestion.shards import Shard

IN_PROGRESS = "in-progress"  # the folder of the progress files, next to the output
INTERVAL_S = 1.0
SPEED_WINDOW_S = 20.0
SHOWN = 4  # sources at a time


@contextmanager
def reporting_progress(output: Path, share: Callable[[], float]) -> Iterator[None]:
    """While the context lasts, report once every INTERVAL_S how much of the work on `output` is done (0 to 1).

    A file system that refuses the report does not stop the work.
    """
    file = output.parent / IN_PROGRESS / output.name
    ended = threading.Event()

    def report() -> None:
        try:
            while not ended.wait(INTERVAL_S):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{min(max(share(), 0.0), 1.0):.6f}")
            file.unlink(missing_ok=True)
        except OSError:
            return

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class ProgressMeter:
    """Reports the progress of the work on shards. The reporter estimates the time left.

    A context manager: while it lasts, a thread reads the progress files in `folder`, the parent of all outputs.
    """

    def __init__(self, reporter: Reporter, phase: str, shards: Sequence[Shard], folder: Path) -> None:
        self._reporter, self._phase = reporter, phase
        self._in_progress = folder / IN_PROGRESS
        self._shards = [(shard.source, shard.size) for shard in shards]
        self._shares = [0.0] * len(shards)
        self._sizes: dict[str, int] = defaultdict(int)
        for source, size in self._shards:
            self._sizes[source] += size
        self._done = dict.fromkeys(self._sizes, 0.0)
        self._history: deque[tuple[float, float]] = deque()  # time, bytes done
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def finished(self, index: int) -> None:
        with self._lock:
            self._set(index, 1.0)
            self._report()

    def __enter__(self) -> Self:
        for left in self._files():
            left.unlink(missing_ok=True)  # by a worker that was killed
        with self._lock:
            self._report()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            with self._lock:
                for file in self._files():
                    self._read(file)
                self._report()

    def _files(self) -> list[Path]:
        try:
            return list(self._in_progress.iterdir())
        except OSError:
            return []

    def _read(self, file: Path) -> None:
        try:
            index, share = int(file.name), float(file.read_text())
        except (OSError, ValueError):  # removed, or being written
            return
        if 0 <= index < len(self._shares) and self._shares[index] < 1.0:
            self._set(index, min(share, 0.999))  # may decrease: the shard of a lost worker starts again

    def _set(self, index: int, share: float) -> None:
        source, size = self._shards[index]
        self._done[source] += size * (share - self._shares[index])
        self._shares[index] = share

    def _report(self) -> None:
        now, total = time.monotonic(), round(sum(self._done.values()))
        self._history.append((now, total))
        while len(self._history) > 2 and now - self._history[0][0] > SPEED_WINDOW_S:
            self._history.popleft()
        moved, seconds = total - self._history[0][1], now - self._history[0][0]
        shares = {name: self._done[name] / size for name, size in self._sizes.items() if size}
        shown = [name for name, share in shares.items() if 0.0 < share < 0.9999]
        shown = shown or [name for name, share in shares.items() if not share]
        info = {self._phase: f"{moved / seconds / 1e6:.3g} MB/s"} if moved > 0 and seconds > 0 else {}
        for name in shown[:SHOWN]:
            info[f"source {name}" if name == self._phase else name] = f"{int(100 * shares[name])}%"
        self._reporter.progress(total, sum(self._sizes.values()), "bytes", **info)
