"""The file of a local MLflow database: its address, its schema, and a template of an empty one.

MLflow needs seconds to create a database, and the result is always the same. The first database that a machine creates
with a version of MLflow is kept next to the cached compositions, without any experiments. Later stores begin with a
copy of it. Losing it costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import sqlite3
import uuid
from importlib.metadata import version
from pathlib import Path

from pipelines import cache_directory

ARTIFACTS = "mlartifacts"  # the folder next to the database that holds the artifacts of runs
LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


class DatabaseError(Exception):
    """The database can't be used as it is. The text is for the user, and whole."""


def address(path: Path) -> str:
    """The address of a database file for SQLAlchemy.

    A `?`, `#` or `%` in a path means something else in an address, and MLflow and the versions of SQLAlchemy differ in
    how they read it. Such a path is reached through a link in the cache directory. Raises OSError.
    """
    path = path.absolute()
    if re.search("[?#%]", str(path)):
        link = cache_directory.path() / "stores" / hashlib.sha256(str(path.parent).encode()).hexdigest()[:16]
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another process was first
                link.symlink_to(path.parent, target_is_directory=True)
        path = link / path.name
    return f"sqlite:///{path}"


def revision(path: Path) -> str | None:
    """The revision of a database's schema; None if it has none yet. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found[0]) if found else None


def copy(source: Path, target: Path) -> None:
    """Copy the content of a database into another file, also while it is in use. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)


def relocate(path: Path) -> None:
    """Let what the database says of artifacts lead to the folder next to it, where they are after a move or a copy.

    MLflow keeps absolute addresses. Without this, a moved store would write into its old place, and a copy into the
    original. Raises sqlite3.Error.
    """
    if revision(path) is None:
        return
    here = (path.absolute().parent / ARTIFACTS).as_uri()
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database, database:
        kept = [location for (location,) in database.execute("SELECT artifact_location FROM experiments") if location]
        folders = {location.rpartition("/")[0] for location in kept if location.startswith("file:")}
        for old in sorted(folder for folder in folders if folder.endswith(f"/{ARTIFACTS}") and folder != here):
            for table, columns in LOCATIONS.items():
                for column in columns:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (here, len(old) + 1, len(old) + 1, f"{old}/"),
                    )


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
