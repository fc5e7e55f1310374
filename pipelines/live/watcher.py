"""Reads the store for those who look at the live page: one thread, however many they are, and none while nobody looks.

What a page shows is a `View`, in parts: HTML by the id of the element that it stands in. Each part has a mark, a digest
of its content, so that a page gets the parts that it does not have yet. A store that does not answer leaves the parts
as they are, and adds one, `trouble`, that says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from pipelines import run_history, runs_command
from pipelines.live import fragments
from pipelines.live.fragments import TAIL_BYTES, Row
from pipelines.logs import kept_log
from pipelines.redaction import redacted
from pipelines.run_record import RunRecord, StepResult
from pipelines.store import Store
from pipelines.store.files import StoreError

LOCAL_INTERVAL_S = 1.0  # between two looks at a run in progress, in a directory
REMOTE_INTERVAL_S = 2.0  # and in an object store
ENDED_INTERVAL_S = 10.0  # at a run that has ended
STALL_S = 10.0  # without an answer of the store, from which the page says so
MOST_KNOWN = 1000  # runs: of the latest, the list is made
READ_AT_ONCE = 100  # records of runs, until the list is shown with these
NEWEST = 20  # folders of runs that are looked into often, also without a record: the driver may be about to write it
RARELY_S = 60.0  # between two looks at a run whose driver is gone, and at an older folder without a record
ENDED = ("done", "failed", "stopped")


@dataclass(frozen=True)
class View:
    """What a page shows: a run with one step and the log of one process, or without a run the list of runs.

    An empty step or process: the one that matters most now.
    """

    run: str = ""
    step: str = ""
    process: str = ""


@dataclass(frozen=True)
class Part:
    """The content of one element of a page."""

    html: str
    mark: str

    @classmethod
    def of(cls, html: Markup) -> Part:
        return cls(str(html), hashlib.sha256(html.encode(errors="replace")).hexdigest()[:12])


@dataclass
class _Watched:
    """A view, as long as somebody looks at it."""

    viewers: int = 0
    parts: dict[str, Part] = field(default_factory=dict)
    trouble: str = ""
    due: float = 0.0  # monotonic seconds: when it is read again


class Watcher:
    """Keeps the views of a store that somebody looks at up to date."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._interval_s = LOCAL_INTERVAL_S if store.config.is_local else REMOTE_INTERVAL_S
        self._rows: dict[str, Row] = {}  # of the runs, by id
        self._due: dict[str, float] = {}  # monotonic seconds: when the record of a run is read again
        self._views: dict[View, _Watched] = {}
        self._changed = threading.Condition()  # and the lock of the views
        self._asked = 0.0  # monotonic seconds: since when the store owes an answer; 0.0: it does not
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watching(self, view: View) -> Iterator[None]:
        """Keep a view up to date."""
        with self._changed:
            self._views.setdefault(view, _Watched()).viewers += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._views[view].viewers -= 1
                if not self._views[view].viewers:
                    del self._views[view]

    def news(self, view: View, marks: Mapping[str, str], timeout_s: float) -> dict[str, Part]:
        """The parts of a watched view whose marks are others, as soon as there are any; none after the timeout."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._closed:
                watched = self._views[view]
                parts = {**watched.parts, "trouble": Part.of(self._trouble(watched))}
                if found := {name: part for name, part in parts.items() if marks.get(name) != part.mark}:
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, 1.0))
        return {}

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the thread, unless it waits for the store, and all waiting for news."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _trouble(self, watched: _Watched) -> Markup:
        text = watched.trouble
        if self._asked and (silent := time.monotonic() - self._asked) > STALL_S:
            since = time.strftime("%H:%M:%S", time.localtime(time.time() - silent))
            text = f"The store has not answered since {since}. This page shows what was there before."
        return Markup("<p>{}</p>").format(text) if text else Markup("")

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                due = [view for view, watched in self._views.items() if watched.due <= now]
                if self._closed:
                    return
                if not due:
                    first = min((watched.due - now for watched in self._views.values()), default=None)
                    self._changed.wait(first)
                    continue
            for view in due:
                self._read(view)

    def _read(self, view: View) -> None:
        """Bring one view up to date."""
        self._asked = time.monotonic()
        parts: dict[str, Markup] = {}
        trouble, pause = "", self._interval_s
        try:
            self._expect_store()
            parts, pause = self._run_parts(view) if view.run else self._list_parts()
        except OSError as error:
            trouble = redacted(str(error))
        except Exception as error:  # the page must not stand still because of one odd file
            trouble = redacted(f"This can't be shown: {type(error).__name__}: {error}")
        self._asked = 0.0
        with self._changed:
            if watched := self._views.get(view):
                watched.trouble = trouble
                watched.parts |= {name: Part.of(html) for name, html in parts.items()}
                watched.due = time.monotonic() + pause
                self._changed.notify_all()

    def _expect_store(self) -> None:
        config = self._store.config
        if config.is_local and not config.local_root.is_dir():
            raise StoreError(f"There is no directory {config.local_root}: the first run makes it.")

    # -- the list -----------------------------------------------------------------------------------------------

    def _list_parts(self) -> tuple[dict[str, Markup], float]:
        """The list of runs, and the time until it is to be read again. A run that has ended is read once."""
        names = sorted(self._store.files.names("runs"), reverse=True)  # an id begins with the time
        known = names[:MOST_KNOWN]
        self._due = {name: self._due.get(name, 0.0) for name in known}
        now = time.monotonic()
        due = sorted((name for name in known if self._due[name] <= now), key=self._due.__getitem__)
        for name in due[:READ_AT_ONCE]:
            run = run_history.read(self._store, name)
            if run is not None:
                self._rows[name] = fragments.row_of(run, runs_command.result(run))
            if run is not None and run.state in ENDED:
                self._due[name] = math.inf
            elif (run is not None and run.state == "running") or name in known[:NEWEST]:
                self._due[name] = now + 2 * self._interval_s
            else:
                self._due[name] = now + RARELY_S
        self._rows = {name: row for name, row in self._rows.items() if name in self._due}
        listed = fragments.run_list(self._rows.values(), len(names) - len(known))
        return {"runs": listed}, 0.0 if len(due) > READ_AT_ONCE else 2 * self._interval_s

    # -- one run ------------------------------------------------------------------------------------------------

    def _run_parts(self, view: View) -> tuple[dict[str, Markup], float]:
        """The parts of a run, and the time until they are to be read again."""
        run = run_history.read(self._store, view.run)
        if run is None:
            return {"head": Markup("<h1>There is no run {} in this store.</h1>").format(view.run)}, self._interval_s
        parts = {"head": fragments.head(run), "graph-part": fragments.graph(run)}
        pause = self._interval_s if run.state == "running" else ENDED_INTERVAL_S
        step = next((one for one in run.steps if one.name == view.step), None) or current_step(run)
        if step is None:
            return parts, pause
        logs = kept_log.logs(self._store, run.run_id, step.name)
        chosen = next((one for one in logs if one.process == view.process), None) or next(iter(logs), None)
        text = kept_log.tail(self._store, run.run_id, chosen, TAIL_BYTES) if chosen else ""
        parts["step-part"] = fragments.step_head(run, step)
        parts["curves"] = fragments.curves(run_history.curves(self._store, run, step.name))
        parts["log"] = fragments.log(run, step, logs, chosen.process if chosen else "", text)
        return parts, pause


def current_step(run: RunRecord) -> StepResult | None:
    """The step of a run that matters most: one that runs, else one that failed, else the last that has ended."""
    for wanted in (("running",), ("failed",), ("stopped",)):
        if found := [step for step in run.steps if step.state in wanted]:
            return found[0]
    ended = [step for step in run.steps if step.state in ("done", "cached")]
    return ended[-1] if ended else next(iter(run.steps), None)
