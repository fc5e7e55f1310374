"""`bloomline artifacts`: what is in the store, whether it is undamaged, and what can be removed.

bloomline artifacts list [STEP ...]
bloomline artifacts show pretrain          a step, the beginning of a fingerprint, or an artifact's directory
bloomline artifacts verify [pretrain ...]  reads every byte; exit code 1 if something is damaged
bloomline artifacts gc                     removes what killed runs left; with `dry-run`, only prints it
              with `scratch`               and the saved progress of unfinished steps
              with `unused`                and every artifact that is not the latest of a step: it is only printed,
                                           until `remove` is added
              with `older=30d larger=1GB`  of those, the ones that are as old and as large
              with `user=ana`              of those, the ones that runs of that user made

What steps of a running run have made or will use stays, whoever runs it.

With `pipeline=NAME` every word is about the artifacts of that pipeline. Without it, `list`, `verify` and `gc` are about
the whole store, and a step's name stands for that of the default pipeline, or else for the newest of any pipeline.
"""

from __future__ import annotations

import itertools
import shutil
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster.terminal_text import clean_line, indented, say
from pipelines import collection_rules, outline, run_history, terminal, variant
from pipelines.collection_rules import Rules
from pipelines.differences import leaves
from pipelines.errors import BloomlineError, nearest
from pipelines.formatting import duration, metric, number, size
from pipelines.logs import leftovers
from pipelines.process_identity import is_gone
from pipelines.session import Session
from pipelines.store import Record, Store
from pipelines.store.lease import holder

LEAST_ROOM = 40  # columns of a value, however long its name and narrow the terminal
SETTLED_S = 3600.0  # a younger directory may belong to a run whose lease is not visible from here


def command(words: Sequence[str], overrides: list[str], composed: Any, session: Session) -> int:
    """`bloomline artifacts WORD [NAME ...] [OVERRIDE ...]`."""
    actions: dict[str, Callable[[Store, Sequence[str], Scope], int]] = {
        "list": show_list,
        "show": show,
        "verify": verify,
        "gc": collect,
    }
    word = words[0] if words else "list"
    if word not in actions:
        raise BloomlineError(
            f"artifacts: unknown word {word!r}; expected list, show, verify or gc. {nearest(word, actions)}"
        )
    rules, others = collection_rules.split(overrides) if word == "gc" else (None, overrides)
    settings = outline.compose(others, composed).settings
    named = any(override.lstrip("+").startswith("pipeline=") for override in overrides)
    scope = Scope(settings.name, named, rules)
    return actions[word](Store(settings.store), words[1:], scope)


@dataclass(frozen=True)
class Scope:
    """The pipeline of the configuration, whether the command line names it, and which of its artifacts are meant."""

    pipeline: str
    named: bool
    rules: Rules | None = None  # of gc

    def records(self, store: Store) -> list[Record]:
        """The records of the whole store, or those that the named pipeline made or uses, the latest first."""
        latest = store.latest_fingerprints(self.pipeline) if self.named else set()
        return sorted(
            (
                record
                for record in store.records()
                if not self.named or record.pipeline == self.pipeline or record.fingerprint in latest
            ),
            key=lambda record: -record.created,
        )


def show_list(store: Store, names: Sequence[str], scope: Scope) -> int:
    """List every artifact, or those of the named steps, the latest first."""
    records = [record for record in scope.records(store) if not names or record.step in names]
    _tell_unreadable(store)
    if not records:
        of = f" of {', '.join(names)}" if names else ""
        by = f" for pipeline {scope.pipeline}" if scope.named else ""
        _say(f"There are no artifacts{of} in {store.uri_of_root}{by}.")
        return 0
    terminal.show_artifacts(terminal.console(), [(record, _differs(record, records)) for record in records])
    return 0


def _differs(record: Record, records: Sequence[Record]) -> str:
    """The values that tell an artifact from the others of its step and pipeline, as one line."""
    alike = [dict(leaves(one.config)) for one in records if (one.pipeline, one.step) == (record.pipeline, record.step)]
    own = dict(leaves(record.config))
    found = {key: value for key, value in own.items() if any(other.get(key) != value for other in alike)}
    return variant.described({key: str(value) for key, value in found.items()})


def show(store: Store, names: Sequence[str], scope: Scope) -> int:
    """Print one artifact with everything that is in its record."""
    if len(names) != 1:
        raise BloomlineError(
            "artifacts show: expected one step, fingerprint or directory. `artifacts list` names them."
        )
    record = find(store, names[0], scope)
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    _say(f"{record.step}: {record.artifact} by stage {record.stage}, {size(record.size_bytes)}")
    _say(f"  at           {store.uri(record)}")
    _say(f"  fingerprint  {record.fingerprint}")
    _say(f"  made         {made} in {duration(record.seconds)} by run {record.run_id} of pipeline {record.pipeline}")
    commit = f"{record.git_commit}{' with uncommitted changes' if record.git_dirty else ''}"
    _say(f"  code         {commit if record.git_commit else 'not in a git checkout'}")
    _print_values("about", record.describe)
    _print_values("config", record.config, shown=lambda name, value: number(value))  # as it would be written
    _print_values("metrics", record.metrics)
    _print_values("inputs", {name: entry.fingerprint[:12] for name, entry in record.inputs.items()})
    _print_values("files", {file.path: size(file.size) for file in record.files})
    for title, text in record.highlights.items():
        say(f"{clean_line(title)}\n{indented(text)}")
    damages = store.inspect(record)
    _say("undamaged" if not damages else f"DAMAGED: {'; '.join(map(str, damages))}")
    return 1 if damages else 0


def verify(store: Store, names: Sequence[str], scope: Scope) -> int:
    """Read every byte of every artifact, or of the named ones. Without names, every record too."""
    records = [find(store, name, scope) for name in names] or scope.records(store)
    damaged = 0 if names else _tell_unreadable(store)
    for record in sorted(records, key=lambda record: record.created):
        damages = store.inspect(record, thorough=True)
        damaged += bool(damages)
        _say(
            f"{'DAMAGED  ' if damages else 'undamaged'}  {record.step}  {record.fingerprint[:12]}  {store.uri(record)}"
        )
        for damage in damages:
            _say(f"         {damage}")
    total = len(records) + (0 if names else len(store.unreadable_records()))
    _say(f"{total} artifacts, {damaged} damaged" + ("; `bloomline run` computes those again." if damaged else "."))
    return 1 if damaged else 0


def collect(store: Store, words: Sequence[str], scope: Scope) -> int:
    """Remove what killed runs left; with `unused` also every artifact that is not the latest of a step, and with
    `scratch` also the saved progress of steps that were stopped."""
    known = ("unused", "scratch", "remove", "dry-run")
    if unknown := sorted(set(words) - set(known)):
        raise BloomlineError(
            f"artifacts gc: unknown word {unknown[0]!r}; expected none, or some of {', '.join(known)}."
        )
    artifacts = "unused" in words or scope.rules is not None
    dry = "dry-run" in words or (artifacts and "remove" not in words)
    _tell_unreadable(store)
    total = 0
    for what, bytes_, remove in _leftovers(store, words, scope):
        _say(f"{'would remove' if dry else 'removed'}  {size(bytes_):>10}  {what}")
        total += bytes_
        if not dry:
            remove()
    _say(f"{size(total)} {'would be' if dry else 'were'} freed.")
    if artifacts and dry and total:
        _say("Nothing was removed. The same command with `remove` after gc removes it.")
    return 0


def find(store: Store, name: str, scope: Scope) -> Record:
    """The record for the name of a step, the first digits of a fingerprint, or an artifact's directory.

    Of a step it is the latest one of the pipeline in question: see the module's text. Raises BloomlineError.
    """
    if record := store.latest(scope.pipeline, name):
        return record
    everywhere = sorted(store.records(), key=lambda record: -record.created)
    place = Path(name).name
    for record in everywhere:
        if Path(record.location).name == place or (len(name) >= 6 and record.fingerprint.startswith(name)):
            return record
    of_step = [record for record in everywhere if record.step == name]
    own = [record for record in of_step if record.pipeline == scope.pipeline or not scope.named]
    if own:
        return own[0]
    where = f" of pipeline {scope.pipeline}" if scope.named else ""
    others = sorted({record.pipeline for record in of_step})
    remedy = f"There is one of pipeline {', '.join(others)}." if others else nearest(name, {r.step for r in everywhere})
    raise BloomlineError(f"There is no artifact of a step {name!r}{where}. {remedy}".rstrip())


def _tell_unreadable(store: Store) -> int:
    """Name every record that can't be read. Their number."""
    found = store.unreadable_records()
    for why in found.values():
        _say(f"DAMAGED    {why}")
    if found:
        _say("           Their files are kept. `bloomline run` of the same pipeline writes the record again.")
    return len(found)


def _leftovers(store: Store, also: Sequence[str], scope: Scope) -> list[tuple[str, int, Callable[[], None]]]:
    """What can be removed: its address, its size in bytes, and a function that removes it.

    Other runs may be active. A run holds the lease of a step from before the step's first file until after its record.
    So the files are listed first, then the leases, then the records. What belongs to a record that can't be read is not
    known, so every file of its fingerprint stays.
    """
    found: list[tuple[str, int, Callable[[], None]]] = []
    places, directories, copies = store.places(), store.staged(), store.copies()
    directories += store.scratches() if "scratch" in also else []
    busy = {
        name.removesuffix(".json")[:16]
        for name in store.files.names("leases")
        if not is_gone(holder(store.files, name))
    }
    busy |= {fingerprint[:16] for fingerprint in store.unreadable_records()}
    named = {record.location for record in store.records()}
    for place in places:
        if place not in named and not any(part in busy for part in place.split("-")):
            bytes_ = sum(of_file for of_file, _ in store.files.tokens(place).values())
            found.append((store.files.uri(place), bytes_, partial(store.remove_files, place)))
    directories = [path for path in directories if path.name.split("-")[0] not in busy]
    directories += [path for path in copies if f"artifacts/{path.parent.name}/{path.name}" not in named]
    directories += [raw for _, raw in leftovers.left(store)]
    for directory in directories:
        if time.time() - directory.stat().st_mtime > SETTLED_S:
            bytes_ = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
            found.append((str(directory), bytes_, partial(shutil.rmtree, directory, ignore_errors=True)))
    if "unused" in also or scope.rules is not None:
        rules = scope.rules or Rules()
        runs = run_history.runs(store)
        users = {run.run_id: run.user for run in runs}
        kept = store.latest_fingerprints()
        kept |= {step.fingerprint for run in runs if run.state == "running" for step in run.steps}
        old = [
            record
            for record in scope.records(store)
            if record.fingerprint not in kept
            and record.fingerprint[:16] not in busy
            and rules.match(record, users.get(record.run_id))
        ]
        found += [(store.uri(record), record.size_bytes, partial(store.remove, record)) for record in old]
    return found


def _say(line: str) -> None:
    """One line, whatever the names and values in it hold."""
    say(clean_line(line))


def _print_values(title: str, values: Any, indent: str = "", shown: Callable[[str, float], str] = metric) -> None:
    """Print names and values, one below the other, with nested values indented below. A long value continues in lines
    that begin where it begins. `shown`: how a number of that name is written."""
    if not values:
        return
    _say(f"{indent}{title}")
    indent += "  "
    width = min(32, max(len(str(name)) for name in values))
    columns = terminal.console().width
    for name, value in values.items():
        if isinstance(value, Mapping) and any(isinstance(item, Mapping) for item in value.values()):
            _print_values(name, value, indent, shown)
            continue
        before = f"{indent}{clean_line(str(name)):<{width}}  "
        room = max(columns - len(before), LEAST_ROOM)
        lines = textwrap.wrap(clean_line(_shown(str(name), value, shown)), room, break_on_hyphens=False) or [""]
        for first, line in zip(itertools.chain([before], itertools.repeat(" " * len(before))), lines, strict=False):
            say(f"{first}{line}".rstrip())


def _shown(name: str, value: Any, shown: Callable[[str, float], str]) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(key, item, shown)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(_shown(name, item, shown) for item in value) or "none"
    return shown(name, value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
