"""What `submit` sends of the user's directory: everything but secrets, and what a job does not need.

A pattern means what it means in a .gitignore. The files .gitignore and .rayignore of the directory leave out more; the
configured `include` brings back what any of these patterns leaves out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.base import ClusterError
from cluster.config import LARGEST_UPLOAD_BYTES
from stages.secret_files import SECRET_FILES, is_secret_file

# The one list of what does not travel. The reasons are printed.
LEFT_OUT: Mapping[str, Sequence[str]] = {
    "secrets": SECRET_FILES,
    "version control": [".git", ".hg", ".svn"],
    "environments": [".venv", "venv", "node_modules", ".tox", ".nox"],
    "stores, data and outputs": [
        ".bloomline",
        "/data",
        "/outputs",
        "/multirun",
        "/mlruns",
        "/mlartifacts",
        "mlflow.db*",
    ],
    "caches": ["__pycache__", ".*_cache", ".cache", ".hypothesis", ".ipynb_checkpoints"],
}
ENVIRONMENT_MARK = "pyvenv.cfg"  # in the root of every virtual environment
IGNORE_FILES = (".gitignore", ".rayignore")
NAMED = 12  # of what was left out
LARGEST = 5


@dataclass(frozen=True)
class Upload:
    """The files of a directory that are sent, and what is left out: paths relative to `directory`."""

    directory: Path
    files: Mapping[str, int]  # to their sizes in bytes
    left_out: Mapping[str, str]  # to the reason; what .gitignore and .rayignore name is not in it

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    def line(self) -> str:
        """What is sent, what is not, and how to send it, in one line."""
        count = f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}"
        sent = f"Sending {count} ({_size(self.bytes)}) of {self.directory}."
        if not self.left_out:
            return sent
        shown = [f"{path} ({reason})" for path, reason in list(self.left_out.items())[:NAMED]]
        more = f" and {len(self.left_out) - NAMED} more" if len(self.left_out) > NAMED else ""
        first = next(iter(self.left_out)).rstrip("/")
        return f"{sent} Left out: {', '.join(shown)}{more}. To send one: 'cluster.include=[{first}]'"

    def expect_at_most(self, limit_bytes: int) -> None:
        """Raise ClusterError, with the largest files, if there is more to send."""
        advice = "Name what the job does not need in a .gitignore or .rayignore, put data where the nodes can read it"
        expect_at_most(limit_bytes, str(self.directory), self.files, advice)

    def copy(self, target: Path) -> None:
        """Copy the files to the new directory `target`. What a link stands for is copied in its place."""
        target.mkdir()
        for name in self.files:
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.directory / name, copy)


def choose(directory: Path, stores: Sequence[Path] = (), include: Sequence[str] = ()) -> Upload:
    """What is sent of `directory`.

    `stores` are directories that are left out because they hold artifacts. `include` are patterns of what is sent
    although it would be left out. Links that lead out of the directory are left out. Raises OSError.
    """
    directory = directory.resolve()
    reasons = [(reason, GitIgnoreSpec.from_lines(patterns)) for reason, patterns in LEFT_OUT.items()]
    chosen = _Choice(directory, reasons, {store.resolve() for store in stores}, GitIgnoreSpec.from_lines(include))
    files = {name: (directory / name).stat().st_size for name in chosen.walk("", [], False)}
    return Upload(directory, files, chosen.left_out)


class _Choice:
    """One walk over a directory."""

    def __init__(
        self, root: Path, reasons: list[tuple[str, GitIgnoreSpec]], stores: set[Path], include: GitIgnoreSpec
    ) -> None:
        self._root, self._reasons, self._stores, self._include = root, reasons, stores, include
        self.left_out: dict[str, str] = {}

    def walk(self, folder: str, ignored: list[tuple[str, GitIgnoreSpec]], wanted: bool) -> Iterator[str]:
        """The files to send below `folder`, which is "" or ends in a slash.

        `ignored` are the ignore files above it, each with its folder. `wanted`: the folder was included by name.
        """
        with os.scandir(self._root / folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for name in IGNORE_FILES:
            if (self._root / folder / name).is_file():
                lines = (self._root / folder / name).read_text("utf-8", errors="replace").splitlines()
                ignored = [*ignored, (folder, GitIgnoreSpec.from_lines(lines))]
        for entry in entries:
            path = f"{folder}{entry.name}{'/' if entry.is_dir() else ''}"
            included = wanted or self._include.match_file(path)
            if not included and (reason := self._reason(path, entry)):
                self.left_out[path] = reason
            elif not included and _is_ignored(path, ignored):
                continue
            elif entry.is_dir():
                yield from self.walk(path, ignored, included)
            elif entry.is_file() and entry.name != ".rayignore":  # Ray would apply it to what is included, too
                yield path

    def _reason(self, path: str, entry: os.DirEntry[str]) -> str:
        """Why an entry is left out, "" if it is not."""
        inside = Path(entry.path).resolve()
        if entry.is_symlink() and (entry.is_dir() or not inside.is_relative_to(self._root)):
            return "link"
        if entry.is_dir() and inside in self._stores:
            return "store"
        if entry.is_dir() and (inside / ENVIRONMENT_MARK).is_file():
            return "environments"
        known = next((reason for reason, patterns in self._reasons if patterns.match_file(path)), "")
        return known or ("secrets" if is_secret_file(entry.name) else "")  # also in capital letters


def expect_at_most(limit_bytes: int, what: str, files: Mapping[str, int], advice: str) -> None:
    """Raise ClusterError if files, given with their sizes in bytes, are too many to send. It names the largest."""
    total = sum(files.values())
    if total <= limit_bytes:
        return
    largest = sorted(files.items(), key=lambda file: -file[1])[:LARGEST]
    named = ", ".join(f"{name} ({_size(size)})" for name, size in largest)
    raise ClusterError(
        f"{what} has {_size(total)} to send, and cluster.upload_limit_bytes is {limit_bytes} ({_size(limit_bytes)}). "
        f"The largest files: {named}. {advice}{'' if limit_bytes >= LARGEST_UPLOAD_BYTES else ', or raise the limit'}."
    )


def _is_ignored(path: str, ignored: Sequence[tuple[str, GitIgnoreSpec]]) -> bool:
    """Whether the nearest ignore file that says anything of `path` leaves it out."""
    for folder, patterns in reversed(ignored):
        said = patterns.check_file(path.removeprefix(folder)).include
        if said is not None:
            return said
    return False


def _size(count: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
