"""Hydra's own flags: where one is given, Hydra itself composes and calls back (--cfg, --info, --help, --multirun, ...).

Without a flag `pipelines.config.compose` does the same in less time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.config import CONFIG_MODULE, CONFIG_NAME, VERSION_BASE, prepare
from pipelines.errors import tell
from stages.base import StageError

SIGNALLED = 128  # exit codes above it: stopped by a signal


def present(arguments: Sequence[str]) -> bool:
    return any(argument.startswith("-") for argument in arguments)


def run(arguments: Sequence[str], action: Callable[[list[str], Any], int]) -> int:
    """Let Hydra parse its flags and call `action(overrides, config)` once, or once for every job of a sweep.

    Returns the largest exit code of the jobs. A job that fails does not end a sweep; a signal does.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    codes: list[int] = []

    def task(composed: Any) -> None:
        try:
            codes.append(action(list(HydraConfig.get().overrides.task), composed))
        except StageError as error:
            codes.append(tell(error))
        if codes[-1] > SIGNALLED:
            sys.exit(codes[-1])

    try:
        # Hydra's parser takes overrides in one row only: they go behind the flags.
        _call_hydra(task, sorted(prepare(arguments), key=_is_override), hydra)
    except SystemExit as end:  # how Hydra ends after --help, --cfg, --info, and after an error that it has printed
        codes.append(end.code if isinstance(end.code, int) else int(end.code is not None))
    return max(codes, default=0)


def completes(arguments: Sequence[str]) -> bool:
    """Whether this is the shell asking for completions, or for their installation."""
    return any(argument in ("-sc", "--shell-completion") for argument in arguments)


def complete(arguments: Sequence[str], verbs: Sequence[str]) -> int:
    """Complete the verb ourselves, all that follows by Hydra.

    The shell passes the line typed so far in COMP_LINE, and Hydra completes what follows the program's name: the verb
    is taken out of the line before Hydra sees it.
    """
    import hydra

    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    asked = any(argument.startswith("query=") for argument in arguments)
    if asked and (len(words) < 2 or (len(words) == 2 and not line.endswith(" "))):
        typed = words[1] if len(words) == 2 else ""
        print("\n".join(verb for verb in verbs if verb.startswith(typed)))
        return 0
    if asked and words[1] in verbs:
        os.environ["COMP_LINE"] = line.replace(f" {words[1]} ", " ", 1)
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    _call_hydra(lambda composed: None, [argument for argument in arguments if argument not in verbs], hydra)
    return 0


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _call_hydra(task: Callable[[Any], None], arguments: Sequence[str], hydra: Any) -> None:
    before = sys.argv
    sys.argv = ["bloomline", *arguments]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME)(task)()
    finally:
        sys.argv = before
