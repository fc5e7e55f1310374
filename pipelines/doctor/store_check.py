"""Checks a store by doing what a run does there: write, create once, rename, read, list and remove."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipelines.doctor.finding import Finding, first_line
from pipelines.redaction import redact_url
from pipelines.store import Store, StoreConfig
from pipelines.store.files import Files, LocalFiles, StoreError

CREATORS = 8  # that try to create the same file at once


def check_store(config: StoreConfig) -> Iterator[Finding]:
    """The artifact store, and the state directory of one that is not local. What is written is removed again."""
    name = f"store {redact_url(config.root)}"
    yield from _check_files(name, Store(config.model_copy(update={"retry_s": 0.0})).files)
    if not config.is_local:
        yield from _check_files(f"store.state_directory {config.state}", LocalFiles(config.state))
    for place in [config.state, *([config.local_root] if config.is_local else [])]:
        with suppress(OSError):
            place.rmdir()  # if it was made for this check


def _check_files(name: str, files: Files) -> Iterator[Finding]:
    folder = f"doctor-{uuid.uuid4().hex}"
    done: list[str] = []
    remedy = (
        "Check store.root, its permissions (for s3: s3:PutObject, GetObject, ListBucket, DeleteObject) and options."
    )
    try:
        files.write(f"{folder}/file", b"first")
        files.write(f"{folder}/file", b"second")
        done.append("write")
        if files.read(f"{folder}/file") != b"second":
            yield Finding("failed", f"{name}: a file does not have what was written last", "Use a consistent store.")
            return
        done.append("read back")
        with ThreadPoolExecutor(CREATORS) as pool:
            first = list(pool.map(lambda number: files.create(f"{folder}/once", b"%d" % number), range(CREATORS)))
        if sum(first) != 1:
            wrong = f"{name}: {sum(first)} of {CREATORS} could create one file at the same time; expected one"
            yield Finding("failed", wrong, "Two runs could compute the same step. Use a store with conditional writes.")
            return
        done.append("atomic create")
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / "artifact"
            if isinstance(files, LocalFiles):  # a rename needs one file system
                source = files.root / folder / "staged"
            source.mkdir()
            (source / "content").write_bytes(b"content")
            files.put(source, f"{folder}/artifact")
        if files.read(f"{folder}/artifact/content") != b"content" or "artifact" not in files.names(folder):
            yield Finding("failed", f"{name}: a directory that was moved there cannot be read or listed", remedy)
            return
        done.append("rename" if isinstance(files, LocalFiles) else "upload")
        files.remove(folder)
        if files.read(f"{folder}/file") is not None:
            yield Finding("failed", f"{name}: a file that was deleted is still there", remedy)
            return
        done.append("delete")
    except Exception as error:  # of any file system that fsspec supports
        did = f" (after: {', '.join(done)})" if done else ""
        with suppress(Exception):
            files.remove(folder)
        said = first_line(error) if isinstance(error, StoreError) else f"{name}: {first_line(error)}"
        yield Finding("failed", f"{said}{did}", remedy)
        return
    yield Finding("ok", f"{name}: {', '.join(done)}")
