"""The store itself: find, verify, open, stage, commit and collect artifacts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipelines.errors import BloomlineError
from pipelines.store.digests import DigestMemory, sha256_of
from pipelines.store.files import Files, LocalFiles, RemoteFiles, StoreError, sync_tree
from pipelines.store.json_values import text
from pipelines.store.record import FileEntry, Record
from pipelines.store.signature import sign, without_signature
from pipelines.store.store_config import StoreConfig

FINGERPRINT = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Damage:
    """One thing wrong with an artifact in the store."""

    path: str  # of the file, relative to the artifact
    what: str  # "missing", "truncated: ...", "content changed", ...

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


class Store:
    """Artifacts by fingerprint. Cheap to make; picklable by its config.

    `answered`: a remote root has answered another process, so its address is right.
    """

    def __init__(self, config: StoreConfig, answered: bool = False) -> None:
        self.config = config
        self.digests = DigestMemory(config.state / "digests.sqlite")
        self.files: Files
        if config.is_local:
            self.files = LocalFiles(config.local_root)
        else:
            self.files = RemoteFiles(config.root, config.options, config.retry_s, answered)

    def tell(self, say: Callable[[str], None]) -> None:
        """Have it said when a remote root stops answering, and when it answers again. Threads of the run may say it."""
        if isinstance(self.files, RemoteFiles):
            self.files.tell = say

    def hurry(self) -> None:
        """From now on, do not wait for a remote root that does not answer."""
        if isinstance(self.files, RemoteFiles):
            self.files.hurry()

    # -- records ------------------------------------------------------------------------------------------------

    def record(self, fingerprint: str) -> Record | None:
        """The record of a fingerprint, or None if there is none that can be read: then the step runs again."""
        return None if isinstance(found := self._read_record(fingerprint), str) else found

    def records(self) -> Iterator[Record]:
        """Every readable record."""
        return (record for name in self._recorded() if (record := self.record(name)))

    def unreadable(self, fingerprint: str) -> str:
        """Why the record of a fingerprint can't be read; "" if it can, or if there is none."""
        return found if isinstance(found := self._read_record(fingerprint), str) else ""

    def unreadable_records(self) -> dict[str, str]:
        """The fingerprint of every record that can't be read, and why."""
        return {name: why for name in self._recorded() if (why := self.unreadable(name))}

    def latest(self, pipeline: str, step: str) -> Record | None:
        """The newest record of a step of a pipeline, with which a plan compares the step."""
        content = (self.files.read(f"latest/{pipeline}/{step}.json") or b"").decode(errors="replace").strip()
        return self.record(content) if FINGERPRINT.fullmatch(content) else None

    def set_latest(self, pipeline: str, step: str, fingerprint: str) -> None:
        path = f"latest/{pipeline}/{step}.json"
        if self.files.read(path) != fingerprint.encode():
            self.files.write(path, fingerprint.encode())

    # -- reading ------------------------------------------------------------------------------------------------

    def inspect(self, record: Record, thorough: bool = False) -> list[Damage]:
        """The damages of an artifact's files. Reads only files whose stat changed, or every file if `thorough`."""
        found = self.files.tokens(record.location)
        known = self.digests.known()
        damages, seen, damaged = [], [], []
        for file in record.files:
            if file.path not in found:
                damages.append(Damage(file.path, "is missing"))
                continue
            size, token = found[file.path]
            key = self.files.key(f"{record.location}/{file.path}")
            if size != file.size:
                damages.append(Damage(file.path, f"has {size:,} bytes instead of {file.size:,}"))
            elif thorough or known.get(key) != (token, file.sha256):
                if self._digest(record, file) == file.sha256:
                    seen.append((key, token, file.sha256))
                else:
                    damages.append(Damage(file.path, "has other content than what was written"))
                    damaged.append(key)
        damages += [
            Damage(path, "does not belong there") for path in found.keys() - {file.path for file in record.files}
        ]
        self.digests.remember(seen)
        self.digests.forget(damaged)
        return damages

    def open(self, record: Record) -> Path:
        """A local directory with the artifact's files, every digest checked just now.

        Raises BloomlineError naming the damaged files.
        """
        remote = isinstance(self.files, RemoteFiles)
        path = (self.config.state / "cache" if remote else self.config.local_root) / record.location
        damages = _check(path, record)
        if damages and remote:  # not fetched yet, or the copy is damaged
            self._fetch(record, path)
            damages = _check(path, record)
        if damages:
            # The next plan must not take these files for undamaged because their stat is as it was.
            self.digests.forget(self.files.key(f"{record.location}/{damage.path}") for damage in damages)
            raise BloomlineError(
                f"The artifact of step {record.step} at {self.uri(record)} is damaged: "
                f"{'; '.join(map(str, damages))}. Run the same command again: the step will run again."
            )
        return path

    def figures(self, record: Record) -> dict[str, Path]:
        """The artifact's figures, name -> PNG on this machine, and those of measurements, which its run keeps here."""
        of_run = self.config.state / "runs" / Path(record.run_id).name / "figures" / Path(record.step).name
        measured = {path.stem: path for path in sorted(of_run.glob("*.png"))}
        return measured | {name.removesuffix(".png"): path for name, path in self._shown(record, "figures/", ".png")}

    def pages(self, record: Record) -> dict[str, Path]:
        """The artifact's pages for people, name -> HTML or Markdown on this machine."""
        return dict(self._shown(record, "pages/", ""))

    def _shown(self, record: Record, folder: str, ending: str) -> Iterator[tuple[str, Path]]:
        """The files of a folder of an artifact by their names in it. Files of a remote artifact are fetched."""
        for file in record.files:
            if file.path.startswith(folder) and file.path.endswith(ending):
                if isinstance(self.files, RemoteFiles):
                    path = self.config.state / "cache" / folder / file.sha256 / Path(file.path).name
                    if not path.exists():  # with this digest, and whole: it is renamed once it is here
                        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
                        self.files.get(f"{record.location}/{file.path}", part)
                        part.rename(path)
                else:
                    path = self.config.local_root / record.location / file.path
                yield file.path.removeprefix(folder), path

    @property
    def uri_of_root(self) -> str:
        return self.files.uri("").rstrip("/")

    def uri(self, record: Record) -> str:
        return self.files.uri(record.location)

    # -- writing ------------------------------------------------------------------------------------------------

    def expect_bucket(self) -> None:
        """Raise StoreError if the bucket of a remote root does not exist, which reads like an empty store."""
        if isinstance(self.files, RemoteFiles):
            self.files.expect_bucket()

    def expect_writable(self) -> None:
        """Raise StoreError if a local directory that a run needs can't be written to, or if there is no bucket."""
        self.expect_bucket()
        directories = {self.config.state, self.config.local_root} if self.config.is_local else {self.config.state}
        for directory in directories:
            if text(str(directory)) != str(directory):  # libraries that write artifacts take paths in UTF-8 only
                raise StoreError(f"The store's directory {directory} has a name that is not UTF-8. Choose another.")
            there = next(path for path in (directory, *directory.parents) if path.exists())
            if not there.is_dir():
                problem = f"{there} is a file"
            elif not os.access(there, os.W_OK | os.X_OK):
                problem = (
                    f"{there} is read-only" if directory == there else f"it does not exist, and {there} is read-only"
                )
            else:
                continue
            raise StoreError(
                f"The store's directory {directory} can't be written to: {problem}. Choose another with "
                "store.root=DIRECTORY, BLOOMLINE_ROOT or store.state_directory=DIRECTORY."
            )

    def scratch(self, fingerprint: str) -> Path:
        """The durable directory in which a step saves its progress until it is done."""
        path = self.config.state / "scratch" / fingerprint[:16]
        path.mkdir(parents=True, exist_ok=True)
        return path

    def stage(self, fingerprint: str) -> Path:
        """A new empty directory to write an artifact into. Directories that killed attempts left are removed."""
        staging = self._staging
        staging.mkdir(parents=True, exist_ok=True)
        for left in staging.glob(f"{fingerprint[:16]}-*"):
            shutil.rmtree(left, ignore_errors=True)
        path = staging / f"{fingerprint[:16]}-{uuid.uuid4().hex[:8]}"
        path.mkdir()
        return path

    def discard(self, staged: Path) -> None:
        """Remove a staged directory that did not become an artifact."""
        shutil.rmtree(staged, ignore_errors=True)

    def list_files(self, staged: Path) -> tuple[FileEntry, ...]:
        """Every file below a staged directory with size and digest. Raises BloomlineError for links and the like."""
        entries = []
        for path in sorted(staged.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise BloomlineError(
                    f"{path.relative_to(staged)} is not a regular file; expected only regular files in an artifact."
                )
            if path.is_file():
                name = path.relative_to(staged).as_posix()
                try:
                    entries.append(FileEntry(path=name, size=path.stat().st_size, sha256=sha256_of(path)))
                except ValidationError:
                    raise BloomlineError(
                        f"The name {name!r} of a file in the artifact; expected a name in UTF-8 without backslashes "
                        "and control characters. Rename it where the stage writes it."
                    ) from None
        return tuple(entries)

    def location(self, stage: str, step: str, fingerprint: str) -> str:
        """A new location for an artifact, relative to the root. It has never been used before."""
        return f"artifacts/{stage.replace(':', '.')}/{step}-{fingerprint[:16]}-{uuid.uuid4().hex[:8]}"

    def put(self, staged: Path, location: str, files: Iterable[FileEntry]) -> None:
        """Make a staged directory durable and move it to its location. Its record makes it an artifact."""
        sync_tree(staged)
        for file in files:
            os.chmod(staged / file.path, 0o444)
        self.files.put(staged, location)
        tokens = self.files.tokens(location)
        self.digests.remember(
            (self.files.key(f"{location}/{file.path}"), tokens[file.path][1], file.sha256)
            for file in files
            if file.path in tokens
        )

    def commit(self, record: Record) -> None:
        """Write the record, last and atomically: from here on the fingerprint is a hit. Its scratch is done with.

        Files of an earlier attempt stay until `gc`: somebody may be reading them. Raises StoreError, and writes
        nothing, if the record could not be read back as it is.
        """
        path = f"records/{record.fingerprint}.json"
        try:
            content = record.model_dump_json(indent=1)
            same = Record.model_validate_json(content).model_dump_json(indent=1) == content
        except ValueError as error:
            raise StoreError(f"The record of step {record.step} can't be written: {_first(error)}.") from error
        if not same:
            raise StoreError(f"The record of step {record.step} can't be written: it would be read back differently.")
        key = self.config.signing_key
        self.files.write(path, sign(content.encode(), path, key) if key else content.encode())
        shutil.rmtree(self.config.state / "scratch" / record.fingerprint[:16], ignore_errors=True)

    # -- collection ---------------------------------------------------------------------------------------------

    def remove(self, record: Record) -> None:
        """Remove an artifact: its record first, so that no run finds it half removed."""
        self.files.remove(f"records/{record.fingerprint}.json")
        self.remove_files(record.location)

    def remove_files(self, location: str) -> None:
        """Remove the files at a location under artifacts/."""
        self.files.remove(location)
        self.digests.forget_below(self.files.key(location))

    def places(self) -> list[str]:
        """Every location under artifacts/, with or without a record. A run that was killed leaves one without."""
        return [
            f"artifacts/{stage}/{name}"
            for stage in self.files.names("artifacts")
            for name in self.files.names(f"artifacts/{stage}")
        ]

    def staged(self) -> list[Path]:
        """The directories of artifacts that are being written, or that killed steps left. Fingerprints name them."""
        return _directories(self._staging, "*")

    def scratches(self) -> list[Path]:
        """The directories with the saved progress of unfinished steps. Fingerprints name them."""
        return _directories(self.config.state / "scratch", "*")

    def copies(self) -> list[Path]:
        """This machine's copies of remote artifacts. The last two parts of a path are those of the location."""
        return _directories(self.config.state / "cache" / "artifacts", "*/*")

    def latest_fingerprints(self, *pipelines: str) -> set[str]:
        """The fingerprints that are the latest of some step of these pipelines; of none: of any pipeline."""
        return {
            (self.files.read(f"latest/{pipeline}/{name}") or b"").decode(errors="replace")
            for pipeline in pipelines or self.files.names("latest")
            for name in self.files.names(f"latest/{pipeline}")
        }

    # -- inside -------------------------------------------------------------------------------------------------

    def _recorded(self) -> list[str]:
        """The fingerprints that have a record, readable or not."""
        stems = (name.removesuffix(".json") for name in self.files.names("records") if name.endswith(".json"))
        return [stem for stem in stems if FINGERPRINT.fullmatch(stem)]

    def _read_record(self, fingerprint: str) -> Record | str | None:
        """The record of a fingerprint, why it can't be read, or None if there is none."""
        path = f"records/{fingerprint}.json"
        content = self.files.read(path)
        if content is None:
            return None
        try:
            record = Record.model_validate_json(without_signature(content, path, self.config.accepted_keys))
        except ValueError as error:
            return f"{self.files.uri(path)} can't be read: {_first(error)}"
        if record.fingerprint != fingerprint:
            return f"{self.files.uri(path)} is the record of another fingerprint, {record.fingerprint[:12]}"
        return record

    @property
    def _staging(self) -> Path:
        """The staging directory, on the same file system as the artifacts, so that a rename moves them."""
        return (self.config.local_root if self.config.is_local else self.config.state) / "staging"

    def _digest(self, record: Record, file: FileEntry) -> str:
        if isinstance(self.files, LocalFiles):
            return sha256_of(self.config.local_root / record.location / file.path)
        fetched = self.config.state / "cache" / f"check-{uuid.uuid4().hex[:8]}"
        try:
            self.files.get(f"{record.location}/{file.path}", fetched)  # type: ignore[attr-defined]
            return sha256_of(fetched)
        finally:
            fetched.unlink(missing_ok=True)

    def _fetch(self, record: Record, path: Path) -> None:
        """Copy a remote artifact to `path` on this machine, without files that no longer exist."""
        assert isinstance(self.files, RemoteFiles)
        part = path.with_name(f"{path.name}.part-{uuid.uuid4().hex[:8]}")
        try:
            part.mkdir(parents=True)
            for file in record.files:
                with contextlib.suppress(FileNotFoundError):
                    self.files.get(f"{record.location}/{file.path}", part / file.path)
            try:
                part.rename(path)
            except OSError:  # there is a damaged copy, or another process fetched the artifact first and reads it
                if _check(path, record):
                    shutil.rmtree(path, ignore_errors=True)
                    part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _first(error: ValueError) -> str:
    """The first thing that is wrong with a record, on one line."""
    if isinstance(error, ValidationError):
        found = error.errors()[0]
        return ": ".join(filter(None, [".".join(map(str, found["loc"])), found["msg"]]))
    return str(error).splitlines()[0]


def _directories(parent: Path, pattern: str) -> list[Path]:
    return [path for path in sorted(parent.glob(pattern)) if path.is_dir()]


def _check(path: Path, record: Record) -> list[Damage]:
    """What is wrong with a record's files below a local directory. Reads every byte."""
    return [damage for file in record.files if (damage := _damage(path / file.path, file))]


def _damage(path: Path, file: FileEntry) -> Damage | None:
    try:
        size = path.stat().st_size
        if size != file.size:
            return Damage(file.path, f"has {size:,} bytes instead of {file.size:,}")
        return None if sha256_of(path) == file.sha256 else Damage(file.path, "has other content than what was written")
    except FileNotFoundError:
        return Damage(file.path, "is missing")
    except OSError as error:
        return Damage(file.path, f"can't be read ({error.strerror})")
