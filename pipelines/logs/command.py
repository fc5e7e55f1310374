"""`bloomline logs`: what the steps of a run printed, from the store alone.

bloomline logs RUN                         the steps and processes that have logs, with their sizes
bloomline logs RUN STEP                    what all processes of a step printed
bloomline logs RUN STEP rank=1             one rank of its gang; worker=1: one worker of its map
bloomline logs RUN STEP --follow           and what they print from now on, until the step has ended

RUN is an id, the beginning or the end of one, or `latest`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.terminal_text import clean_line, say
from pipelines import outline, own_keys, run_history, terminal
from pipelines.errors import BloomlineError
from pipelines.formatting import duration, size
from pipelines.logs import kept_log
from pipelines.logs.kept_log import KeptLog
from pipelines.run_record import RunRecord
from pipelines.session import Session
from pipelines.store import Store
from pipelines.table import Cell, Column, draw

FOLLOW = ("--follow", "-f")
POLL_S = 1.0
SILENT_S = 2 * (run_history.HEARTBEAT_S + run_history.LONGEST_PAUSE_S)  # of the driver, after which following ends
SETTLE_S = 5.0  # after a step has ended in a run that continues, its last lines arrive within this time


def command(words: Sequence[str], overrides: list[str], composed: Any, session: Session) -> int:
    """`bloomline logs RUN [STEP] [rank=N | worker=N] [--follow] [OVERRIDE ...]`."""
    follows = any(word in FOLLOW for word in words)
    names = [word for word in words if word not in FOLLOW]
    own, overrides = own_keys.split("logs", overrides)
    if not 1 <= len(names) <= 2:
        raise BloomlineError("logs: expected a run, and a step or none. `bloomline runs` lists the runs.")
    if len(own) > 1 or any(not number.isdigit() for number in own.values()):
        given = " ".join(f"{key}={value}" for key, value in own.items())
        raise BloomlineError(f"logs: {given}; expected rank=N or worker=N with a whole number.")
    if len(names) == 1 and (own or follows):
        given = "--follow" if follows else " ".join(f"{key}={value}" for key, value in own.items())
        raise BloomlineError(f"logs: {given} is about a step. Name one after the run.")
    settings = outline.compose(overrides, composed).settings
    store = Store(settings.store)
    run = run_history.find(store, names[0])
    if len(names) == 1:
        return show_list(store, run)
    process = "".join(f"{key}-{int(value)}" for key, value in own.items())
    run, step = _maker(store, run, names[1])
    if follows:
        return follow(store, run, step, process)
    return show(store, run, step, process)


def show_list(store: Store, run: RunRecord) -> int:
    """List the steps and processes of a run that have logs."""
    found = kept_log.logs(store, run.run_id)
    cached = {step.name: step.cached_from for step in run.steps if step.cached_from}
    if not found and not cached:
        say(f"Nothing was printed by the steps of run {run.run_id}{', so far' if run.state == 'running' else ''}.")
        return 0
    columns = [Column("Step"), Column("Process"), Column("Size", right=True), Column("Not kept", flexible=True)]
    rows = [(log.step, log.title, size(log.size), size(log.dropped) if log.dropped else "") for log in found]
    rows += [(name, "cached", "", f"`bloomline logs {made_by}` has its logs") for name, made_by in cached.items()]
    draw(terminal.console(), columns, [[Cell(clean_line(text)) for text in row] for row in rows])
    return 0


def show(store: Store, run: RunRecord, step: str, process: str) -> int:
    """Print the logs of a step, each below a line that names its process if there are several."""
    found = _chosen(store, run, step, process)
    for log in found:
        if len(found) > 1:
            say(f"== {step}, {log.title}")
        for text in _texts(store, run, log, {}, whole=True):
            _print(text, "")
    return 0


def follow(store: Store, run: RunRecord, step: str, process: str) -> int:
    """Print the logs of a step as they come. Returns when the step has ended, 1 if the driver of the run was killed."""
    positions: dict[str, int] = {}
    settled = time.monotonic() + SETTLE_S
    heard = time.monotonic()
    if _is_active(run, step):
        print(f"Following {step} of run {run.run_id} until it ends. Ctrl-C stops following.", file=sys.stderr)
    else:
        _chosen(store, run, step, process)
    while True:
        before, run = run.heartbeat, run_history.read(store, run.run_id) or run
        heard = time.monotonic() if run.heartbeat != before else heard
        active = _is_active(run, step)  # before what it printed is read
        found = [log for log in kept_log.logs(store, run.run_id, step) if process in ("", log.process)]
        several = process == "" and any(log.process != "step" for log in found)
        for log in found:
            for text in _texts(store, run, log, positions, whole=not active):
                settled = time.monotonic() + SETTLE_S
                _print(text, f"{log.process} | " if several else "")
        silent_s = time.monotonic() - heard if run.state == "running" and run.heartbeat else 0.0
        if run.state == "killed" or silent_s > SILENT_S:
            return _say_killed(run, step, silent_s)
        if run.state != "running" or (not active and time.monotonic() > settled):
            if run.state != "running" and not found:
                _chosen(store, run, step, process)
            return 0
        time.sleep(POLL_S)


def _say_killed(run: RunRecord, step: str, silent_s: float) -> int:
    """Say that nothing more will come of a step whose run has no driver any more."""
    how = f"has given no sign of life for {duration(silent_s)}" if silent_s else "was killed, or its machine was lost"
    say(
        f"The driver of run {run.run_id} {how}, so following {step} ends here. What it printed last may be missing. "
        f"Continue the run: {run.command}",
        file=sys.stderr,
    )
    return 1


def _is_active(run: RunRecord, step: str) -> bool:
    return run.state == "running" and run.step(step).state in ("waiting", "running")


def _maker(store: Store, run: RunRecord, name: str) -> tuple[RunRecord, str]:
    """The run that ran a step, and the step's name there: of a cached step another one. Raises BloomlineError."""
    step = run.step(name)
    if step.cached_from is None or step.cached_from == run.run_id:
        same = [one for one in run.steps if one.fingerprint == step.fingerprint and one.state == "done"]
        return run, (same[0].name if step.state == "cached" and same else name)
    made_by = run_history.read(store, step.cached_from)
    if made_by is None:
        raise BloomlineError(
            f"Step {name} of run {run.run_id} was cached, and run {step.cached_from}, which made it, was deleted "
            "with its logs."
        )
    there = next((one.name for one in made_by.steps if one.fingerprint == step.fingerprint), name)
    print(f"{name} was cached: this is what run {made_by.run_id} printed when it made it.", file=sys.stderr)
    return made_by, there


def _chosen(store: Store, run: RunRecord, step: str, process: str) -> list[KeptLog]:
    """The logs of a step, or of one of its processes. Raises BloomlineError with what there is instead."""
    found = kept_log.logs(store, run.run_id, step)
    chosen = [log for log in found if process in ("", log.process)]
    if chosen:
        return chosen
    if found:
        others = ", ".join(log.process.replace("-", "=") if log.process != "step" else log.title for log in found)
        raise BloomlineError(f"Step {step} of run {run.run_id} has no log of {process.replace('-', ' ')}: {others}.")
    steps = ", ".join(dict.fromkeys(log.step for log in kept_log.logs(store, run.run_id)))
    state = run.step(step).state
    has = f"Steps with logs: {steps}." if steps else "No step of it has."
    raise BloomlineError(f"Step {step} ({state}) of run {run.run_id} has printed nothing. {has}")


def _texts(store: Store, run: RunRecord, log: KeptLog, positions: dict[str, int], whole: bool) -> Iterator[str]:
    """What of a log was not read before: whole lines, and if `whole` is true the last one as it is."""
    position = positions.get(log.process, 0)
    rest = b""
    for dropped, end, content in kept_log.read(store, run.run_id, log, position):
        if dropped:
            yield from ([rest.decode(errors="replace")] if rest else [])
            yield f"[… {size(dropped)} not kept: logs.largest_bytes is the limit …]"
            rest = b""
        *lines, rest = (rest + content).split(b"\n")
        if lines:
            yield b"\n".join(lines).decode(errors="replace")
        positions[log.process] = end - len(rest)
    if rest and whole:
        positions[log.process] += len(rest)
        yield rest.decode(errors="replace")


def _print(text: str, prefix: str) -> None:
    for line in kept_log.as_drawn(text).split("\n"):
        say(prefix + kept_log.without_escapes(line), flush=True)
