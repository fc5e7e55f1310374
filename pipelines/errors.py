"""Errors of the engine. Each message says what is wrong, where, what was expected and what to do."""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.extras import install_command
from cluster.terminal_text import say
from pipelines.redaction import redacted
from stages.base import StageError
from stages.registry import RegistryError


class BloomlineError(StageError):
    """Shown as one clear message, without a traceback. The command's exit code is `exit_code`."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration."""

    key: str  # where: the dotted key, as it would be written on the command line
    found: str  # the value, or what was found in its place
    expected: str  # "" if `found` says it
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" {self.remedy}" if self.remedy else ""
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{_brief(self.key)}: {_brief(self.found)}{expected}.{remedy}"


def _brief(text: str) -> str:
    """A text without its middle if it is too long to be read."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


class ConfigError(BloomlineError):
    """The configuration is not valid. Holds every problem that was found, and whether something was started before."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        self.started = False
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnresolvedError(ConfigError):
    """A value of the configuration must be set, or stands for what cannot be found."""


def show_error(error: StageError) -> int:
    """Print an error on standard error, without a traceback. Returns the exit code."""
    if isinstance(error, ConfigError):
        nothing = "" if error.started else " Nothing was started."
        say(f"The configuration is not valid.{nothing}", file=sys.stderr)
    say(redacted(str(error)), file=sys.stderr)
    return error.exit_code if isinstance(error, BloomlineError) else 1


def disk_error(error: OSError) -> str:
    """An error of the operating system, with the file and what to do."""
    if error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    remedy = REMEDIES.get(error.errno or 0, "")
    return f"{where}{error.strerror}. {f'{remedy}, then run' if remedy else 'Run'} the same command again."


LONGEST = 400  # characters of a key, or of what was found, that are shown
REMEDIES = {  # what to do about an error of the operating system
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Grant access"),
    errno.EROFS: "Choose a directory that can be written to",
    errno.ENOENT: "Check the path, and what removes it",
    errno.ENOTDIR: "Remove or rename the file that stands for a directory",
    errno.EISDIR: "Remove or rename the directory that stands for a file",
    errno.ELOOP: "Remove the link that leads to itself",
    errno.ENAMETOOLONG: "Choose a shorter path",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENFILE: "Close other programs: this machine has too many open files",
    errno.ENOMEM: "Free some memory",
    errno.EADDRINUSE: "Choose another port",
    errno.EIO: "Check the disk",
    errno.ESTALE: "Mount the file system again",
}


def remedy_of(error: RegistryError) -> str:
    """What to do about a name that stands for no usable class: install what its module needs, or name another."""
    if error.missing:
        command = install_command(error.missing)
        return f"Install it with: {command}" if command else f"Install the distribution that has {error.missing!r}."
    return error.remedy or nearest(error.name, error.valid)


def nearest(name: str, valid: Iterable[str]) -> str:
    """ "Did you mean …?" for the closest valid name, or the list of valid names when nothing is close."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Valid: {', '.join(names)}." if names else ""
