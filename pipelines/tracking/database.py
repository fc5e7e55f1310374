"""A cached empty MLflow database. MLflow needs seconds to create one, and the result is always the same.

The first database that a machine creates with a version of MLflow is kept next to the cached compositions, without any
experiments. Later stores begin with a copy of it. Losing it costs time only.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import uuid
from importlib.metadata import version
from pathlib import Path

from pipelines import cache_directory


def begin(path: Path) -> bool:
    """Put a copy of the empty database at `path`, unless something is there. False if there is none to copy."""
    template = _template()
    if path.exists() or not template.exists():
        return path.exists()
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copyfile(template, part)
        if not _sound(part):
            template.unlink(missing_ok=True)
            return False
        part.replace(path)
    except OSError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


def keep(path: Path) -> None:
    """Cache the database at `path`, which MLflow has just created, for the next store."""
    template = _template()
    part = template.with_name(f".{template.name}.{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError, sqlite3.Error):  # without a writable home there is no template
        template.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(path)) as made:
                made.execute("VACUUM INTO ?", (str(part),))
            with contextlib.closing(sqlite3.connect(part)) as empty, empty:
                empty.execute("DELETE FROM experiments")  # the default one names a folder; MLflow creates it again
            part.replace(template)
        finally:
            part.unlink(missing_ok=True)


def _sound(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return bool(database.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def _template() -> Path:
    return cache_directory.path() / f"mlflow-{version('mlflow')}.db"
