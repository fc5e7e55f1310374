"""Hydra's own flags (--cfg, --info, --help, --multirun, ...). If one is given, Hydra itself composes and calls back.

Without a flag, `pipelines.config.compose` does the same in less time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines import project
from pipelines.config import CONFIG_DIRECTORY, CONFIG_NAME, FORCED, VERSION_BASE, prepare
from pipelines.errors import BloomlineError, show_error
from stages.base import StageError

SIGNALLED = 128  # exit codes above it: stopped by a signal
PLACES = {  # flags that name directories of configs, each with its long name
    name: long
    for short, long in (("-cp", "--config-path"), ("-cn", "--config-name"), ("-cd", "--config-dir"))
    for name in (short, long)
}
VALUED = ("-c", "--cfg", "-p", "--package", "--experimental-rerun", *PLACES)  # flags that are followed by a value
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # what may follow -i or --info


def present(arguments: Sequence[str]) -> bool:
    return any(argument.startswith("-") for argument in arguments)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Hydra's flags with their values, overrides, and other words, each in their order."""
    flags: list[str] = []
    overrides: list[str] = []
    words: list[str] = []
    before = ""
    for argument in arguments:
        value = before in VALUED or (before in ("-i", "--info") and argument in INFO)
        if value or argument.startswith("-"):
            flags.append(argument)
        else:
            (overrides if "=" in argument or argument.startswith("~") else words).append(argument)
        before = "" if value else argument
    return flags, overrides, words


def run(arguments: Sequence[str], action: Callable[[list[str], Any], int]) -> int:
    """Let Hydra parse its flags and call `action(overrides, config)` once, or once for every job of a sweep.

    The overrides compose the same configuration again; they include the flags that name directories of configs.
    Returns the largest exit code of the jobs. A job that fails does not end a sweep, but a signal does.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    codes: list[int] = []
    flags, given, words = split(arguments)
    overrides = project.find(Path.cwd()).overrides(given)
    places = _places(flags)
    for place in places:
        name, _, directory = place.partition("=")
        if name == "--config-dir" and not Path(directory).is_dir():
            raise BloomlineError(f"--config-dir: no directory {Path(directory).absolute()}.")
    where = [*places, *(override for override in given if override.lstrip("+").startswith("hydra."))]

    def task(composed: Any) -> None:
        own = [override.removeprefix(FORCED) for override in HydraConfig.get().overrides.task]
        try:
            codes.append(action([*where, *own], composed))
        except StageError as error:
            codes.append(show_error(error))
        if codes[-1] > SIGNALLED:
            sys.exit(codes[-1])

    try:
        with TemporaryDirectory(prefix="bloomline-multirun-") as directory:
            # Hydra writes the configuration of a sweep to a directory. Nothing reads it: every run records its own.
            overrides.insert(0, f"hydra.sweep.dir={directory}")
            # Hydra's parser accepts overrides only in one group, so they follow the flags.
            _call_hydra(task, [*flags, *words, *prepare(overrides)], hydra)
    except SystemExit as end:  # how Hydra ends after --help, --cfg, --info, and after an error that it has printed
        codes.append(end.code if isinstance(end.code, int) else int(end.code is not None))
    return max(codes, default=0)


def _places(flags: Sequence[str]) -> list[str]:
    """The flags that name directories of configs, each with its value in one word."""
    found = []
    for flag, value in zip(flags, [*flags[1:], ""], strict=True):
        if flag in PLACES:
            found.append(f"{PLACES[flag]}={value}")
        elif flag.split("=")[0] in PLACES:
            found.append(flag)
    return found


def completes(arguments: Sequence[str]) -> bool:
    """Whether the shell asks for completions, or the user for their installation."""
    return any(argument in ("-sc", "--shell-completion") for argument in arguments)


def complete(arguments: Sequence[str], verbs: Mapping[str, Sequence[str]]) -> int:
    """Complete the verb, and the word after `artifacts`, here. Hydra completes the rest.

    The shell passes the line typed so far in COMP_LINE, and Hydra completes what follows the program's name. The verb
    and its words are therefore removed from the line first.
    """
    import hydra

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
    _call_hydra(lambda composed: None, [argument for argument in arguments if argument not in verbs], hydra)
    return 0


def _call_hydra(task: Callable[[Any], None], arguments: Sequence[str], hydra: Any) -> None:
    before = sys.argv
    sys.argv = ["bloomline", *arguments]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONFIG_DIRECTORY), config_name=CONFIG_NAME)(task)()
    finally:
        sys.argv = before
