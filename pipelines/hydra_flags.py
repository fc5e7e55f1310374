"""Hydra's own flags (--cfg, --info, --help, --multirun, ...). If one is given, Hydra itself composes and calls back.

Without a flag, `pipelines.config.compose` does the same in less time.
"""

from __future__ import annotations

import difflib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pipelines import project
from pipelines.config import (
    CONFIG_DIRECTORY,
    CONFIG_NAME,
    VERSION_BASE,
    composing,
    pipelines_available,
    prepare,
)
from pipelines.errors import BloomlineError, ConfigError, Problem, show_error
from pipelines.override_problems import FORCED
from pipelines.redaction import redact_url, redacted, remember_overrides
from pipelines.resolution import references_as_written
from stages.base import StageError

Refused = TypeVar("Refused", bound=StageError)
FULL_ERROR = "HYDRA_FULL_ERROR"
SIGNALLED = 128  # exit codes above it: stopped by a signal
LONG = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-r": "--run",
    "-m": "--multirun",
    "-i": "--info",
    "-cp": "--config-path",
    "-cn": "--config-name",
    "-cd": "--config-dir",
}
PLACES = ("--config-path", "--config-name", "--config-dir")  # name directories of configs
# What follows each flag that takes a value, for messages. Hydra's --experimental-rerun, which unpickles, is not here.
VALUED = {
    "--cfg": "one of job, hydra, all",
    "--package": "a key of the configuration",
    "--config-path": "a directory",
    "--config-name": "the name of a file",
    "--config-dir": "a directory",
}
ALONE = ("--help", "--hydra-help", "--resolve", "--run", "--multirun")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # what may follow --info
SHOWN = {"--cfg=job", "--cfg=hydra", "--cfg=all", "--help"}  # with which Hydra prints a configuration
PLACES_OF_HYDRA = ("hydra.sweep.subdir=.", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra.job.chdir=null")
MODES = ("--run", "--multirun", "--cfg", "--info")  # of which a command has one


def split(arguments: Sequence[str], own: Sequence[str] = ()) -> tuple[list[str], list[str], list[str]]:
    """Hydra's flags, overrides, and other words, each in their order.

    A flag has its long name, with its value after an equals sign. Raises BloomlineError for a flag that Hydra does not
    have, or whose value it would not take, and for flags that do not go together. `own`: flags of the verb, which are
    words to it.
    """
    flags: dict[str, str] = {}
    overrides: list[str] = []
    words: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in own or not argument.startswith("-"):
            (overrides if "=" in argument or argument.startswith("~") else words).append(argument)
            continue
        given, _, value = argument.partition("=")
        name = LONG.get(given, given)
        if name in flags:
            more = " Name more directories with 'hydra.searchpath=[file://DIR]'." if name == "--config-dir" else ""
            raise BloomlineError(f"{given} is there twice; expected it once.{more}")
        if name == "--info" and not value:
            value = rest.pop(0) if rest and rest[0] in INFO else "all"
        elif name in VALUED and not value:
            if not rest:
                raise BloomlineError(f"{given}: no value; expected {VALUED[name]} after it.")
            value = rest.pop(0)
        elif name not in (*VALUED, "--info") and (name not in ALONE or "=" in argument):
            raise BloomlineError(f"Unknown flag {argument!r}. {_nearest_flag(given)}")
        flags[name] = value
    _check(flags)
    return [f"{name}={value}" if value else name for name, value in flags.items()], overrides, words


def _nearest_flag(given: str) -> str:
    """The flag that was meant, if one is nearly the same; else all of them. Dashes make no flags alike."""
    known = sorted({*LONG.values(), *ALONE})
    close = difflib.get_close_matches(given.lstrip("-"), [flag.lstrip("-") for flag in known], n=1, cutoff=0.65)
    return f"Did you mean '--{close[0]}'?" if close else f"Valid: {', '.join(known)}."


def _check(flags: Mapping[str, str]) -> None:
    for name, valid in (("--cfg", ("job", "hydra", "all")), ("--info", INFO)):
        if name in flags and flags[name] not in valid:
            raise BloomlineError(f"{name}: {flags[name]!r}; expected one of {', '.join(valid)}.")
    if "--package" in flags and "--cfg" not in flags:
        value = flags["--package"]
        raise BloomlineError(
            f"-p (--package) names a part of what --cfg shows; expected --cfg with it. "
            f"A pipeline is chosen by pipeline={value}."
        )
    if "--resolve" in flags and flags.keys().isdisjoint({"--cfg", "--help"}):
        raise BloomlineError("--resolve resolves what --cfg shows; expected --cfg job with it.")
    if len(modes := [name for name in MODES if name in flags]) > 1:
        raise BloomlineError(f"{' and '.join(modes)} do not go together; expected one of them.")
    if (directory := flags.get("--config-dir")) is not None and not Path(directory).is_dir():
        shown = redact_url(directory) if "://" in directory else Path(directory).absolute()
        raise BloomlineError(f"--config-dir: no directory {shown}.")


def not_an_override(word: str) -> ConfigError:
    """The refusal of a word after a verb that takes none."""
    remedy = f"Did you mean pipeline={word}?" if word in pipelines_available() else ""
    return ConfigError([Problem(repr(word), "not an override", "KEY=VALUE, or ~KEY to remove a key", remedy)])


def run(flags: Sequence[str], given: Sequence[str], action: Callable[[list[str], Any], int]) -> int:
    """Let Hydra take its flags and call `action(overrides, config)` once, or once for every job of a sweep.

    The overrides compose the same configuration again; they include the flags that name directories of configs.
    Returns the largest exit code of the jobs. A job that fails does not end a sweep, but a signal does. Raises
    ConfigError for a configuration that cannot be composed, and whatever else than a StageError `action` raises.
    """
    from hydra.core.hydra_config import HydraConfig

    codes: list[int] = []
    raised: list[Exception] = []
    overrides = project.find(Path.cwd()).overrides(given)
    remember_overrides(overrides)
    places = [flag for flag in flags if flag.startswith(PLACES)]
    where = [*places, *(override for override in given if override.lstrip("+").startswith("hydra."))]

    def task(composed: Any) -> None:
        own = [override.removeprefix(FORCED) for override in HydraConfig.get().overrides.task]
        try:
            codes.append(action([*where, *own], composed))
        except StageError as error:
            codes.append(show_error(_after(error, codes)))
        except Exception as error:  # not Hydra's, which are caught outside
            raised.append(error)
            sys.exit(1)
        if codes[-1] > SIGNALLED:
            sys.exit(codes[-1])

    try:
        with TemporaryDirectory(prefix="bloomline-multirun-") as directory:
            # Hydra writes configurations to directories. Nothing reads them: every run records its own. A pipeline that
            # somebody else wrote must not choose where, because that could replace a file of the user.
            overrides[:0] = [f"hydra.sweep.dir={directory}", *PLACES_OF_HYDRA]
            # Hydra's parser accepts overrides only in one group, so they follow the flags.
            call_hydra(task, [*flags, *prepare(overrides)], overrides)
    except ConfigError as error:
        raise _after(error, codes) from error
    except SystemExit as end:  # how Hydra ends after --help, --cfg, --info
        codes.append(end.code if isinstance(end.code, int) else int(end.code is not None))
    if raised:
        raise raised[0]
    return max(codes, default=0)


def _after(error: Refused, codes: Sequence[int]) -> Refused:
    """The error of a job of a sweep. `codes`: of the jobs before it, some of which may have started something."""
    if isinstance(error, ConfigError):
        error.started = 0 in codes
    return error


def completes(arguments: Sequence[str]) -> bool:
    """Whether the shell asks for completions, or the user for their installation."""
    return any(argument in ("-sc", "--shell-completion") for argument in arguments)


def complete(arguments: Sequence[str], verbs: Mapping[str, Sequence[str]]) -> int:
    """Complete the verb, and the word after `artifacts`, here. Hydra completes the rest.

    The shell passes the line typed so far in COMP_LINE, and Hydra completes what follows the program's name. The verb
    and its words are therefore removed from the line first.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    asked = any(argument.startswith("query=") for argument in arguments)
    before, typed = (words, "") if line.endswith(" ") or not words else (words[:-1], words[-1])
    if asked and (len(before) < 2 or (len(before) == 2 and verbs.get(before[1]) and "=" not in typed)):
        known = verbs if len(before) < 2 else verbs[before[1]]
        print("\n".join(word for word in known if word.startswith(typed)))
        return 0
    if asked and words[1] in verbs:
        for word in (words[1], *(set(before) & set(verbs[words[1]]))):
            line = line.replace(f" {word} ", " ", 1)
        os.environ["COMP_LINE"] = line
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    with suppress(ConfigError):  # nothing to complete from
        call_hydra(lambda composed: None, [argument for argument in arguments if argument not in verbs], ())
    return 0


@contextmanager
def _redacted_output() -> Iterator[None]:
    """Within, what is printed is kept, and shown at the end without secrets."""
    kept = io.StringIO()
    try:
        with redirect_stdout(kept):
            yield
    finally:
        print(redacted(kept.getvalue()), end="")


@contextmanager
def _redacted_log() -> Iterator[None]:
    """Within, no message of a log holds a secret: Hydra logs the overrides of each job."""
    before = logging.getLogRecordFactory()

    def record(*arguments: Any, **named: Any) -> logging.LogRecord:
        made = before(*arguments, **named)
        made.msg, made.args = redacted(made.getMessage()), None
        return made

    logging.setLogRecordFactory(record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def call_hydra(task: Callable[[Any], Any], arguments: Sequence[str], overrides: Sequence[str]) -> None:
    """Call Hydra's `main`, which reads its arguments from `sys.argv`. Raises ConfigError."""
    import hydra

    before = sys.argv, os.environ.get(FULL_ERROR)
    sys.argv = ["bloomline", *arguments]
    os.environ[FULL_ERROR] = "1"  # raise an error instead of printing its traceback
    try:
        # What --cfg and --help resolve must not show what is in the environment.
        as_written = references_as_written() if "--resolve" in arguments else nullcontext()
        hidden = _redacted_output() if SHOWN & {*arguments} else nullcontext()
        with (
            composing([*(one for one in arguments if one.startswith("--config-")), *overrides]),
            as_written,
            hidden,
            _redacted_log(),
        ):
            hydra.main(version_base=VERSION_BASE, config_path=str(CONFIG_DIRECTORY), config_name=CONFIG_NAME)(task)()
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before[1]
