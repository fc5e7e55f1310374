"""Live progress over shards: bytes of all sources, the speed, and how far each source is.

Workers tell how far they are in the shard that they work on: a small file each, in a folder beside their work that
every node sees. The step's process looks there about once a second.
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

UNDER_WAY = "under-way"  # the folder, beside the work
TELL_S = 1.0
SPEED_WINDOW_S = 20.0
SHOWN = 4  # sources at a time


@contextmanager
def telling(place: Path, share: Callable[[], float]) -> Iterator[None]:
    """While the context lasts, tell how much of the work that will fill `place` is done: `share`, 0 to 1.

    What ends within TELL_S costs nothing but a thread. That nothing can be told is no reason to stop working.
    """
    file = place.parent / UNDER_WAY / place.name
    ended = threading.Event()

    def tell() -> None:
        try:
            while not ended.wait(TELL_S):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{min(max(share(), 0.0), 1.0):.6f}")
            file.unlink(missing_ok=True)
        except OSError:
            return

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Meter:
    """Tells a reporter how far the work on shards is. The time left is the reporter's to work out.

    A context manager: while it lasts, a thread looks at what is under way. `folder`: where the work is done.
    """

    def __init__(self, reporter: Reporter, what: str, shards: Sequence[Shard], folder: Path) -> None:
        self._reporter, self._what = reporter, what
        self._under_way = folder / UNDER_WAY
        self._shards = [(shard.source, shard.size) for shard in shards]
        self._shares = [0.0] * len(shards)
        self._sizes: dict[str, int] = defaultdict(int)
        for source, size in self._shards:
            self._sizes[source] += size
        self._done = dict.fromkeys(self._sizes, 0.0)
        self._seen: deque[tuple[float, float]] = deque()  # when, and how many bytes were done
        self._one_at_a_time = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def finished(self, index: int) -> None:
        with self._one_at_a_time:
            self._set(index, 1.0)
            self._tell()

    def __enter__(self) -> Self:
        for left in self._files():
            left.unlink(missing_ok=True)  # by a worker that was killed
        with self._one_at_a_time:
            self._tell()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(TELL_S):
            with self._one_at_a_time:
                for file in self._files():
                    self._look(file)
                self._tell()

    def _files(self) -> list[Path]:
        try:
            return list(self._under_way.iterdir())
        except OSError:
            return []

    def _look(self, file: Path) -> None:
        try:
            index, share = int(file.name), float(file.read_text())
        except (OSError, ValueError):  # gone, or being written
            return
        if 0 <= index < len(self._shares) and self._shares[index] < 1.0:
            self._set(index, min(share, 0.999))  # also less than before: a lost worker's shard is begun anew

    def _set(self, index: int, share: float) -> None:
        source, size = self._shards[index]
        self._done[source] += size * (share - self._shares[index])
        self._shares[index] = share

    def _tell(self) -> None:
        now, total = time.monotonic(), round(sum(self._done.values()))
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[0][0] > SPEED_WINDOW_S:
            self._seen.popleft()
        speed = max(total - self._seen[0][1], 0.0) / max(now - self._seen[0][0], 1e-3)
        shares = {name: self._done[name] / size for name, size in self._sizes.items() if size}
        told_of = [name for name, share in shares.items() if 0.0 < share < 0.9999]
        told_of = told_of or [name for name, share in shares.items() if not share]
        told = {self._what: f"{speed / 1e6:.1f} MB/s"}
        for name in told_of[:SHOWN]:
            told[f"source {name}" if name == self._what else name] = f"{int(100 * shares[name])}%"
        self._reporter.progress(total, sum(self._sizes.values()), "bytes", **told)
