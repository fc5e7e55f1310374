"""The command line. The first word picks the verb, the rest are Hydra overrides and Hydra's own flags.

    bloomline plan pipeline=quickstart steps.pretrain.learning_rate=1e-3
    bloomline run from=pretrain
    bloomline run --multirun steps.pretrain.learning_rate=1e-3,3e-4

`plan`, and a `run` that finds everything cached, import neither ray, nor torch, nor mlflow.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.errors import BloomlineError, nearest, tell
from pipelines.session import Session
from stages.base import StageError

USAGE = """\
usage: bloomline VERB [OVERRIDE ...] [HYDRA FLAG ...]

verbs
  run        bring a pipeline up to date: plan it, then run what is not cached
  plan       show what a run would do, and why; exit code 0 if it could be done
  submit     do the same run as a Ray job on a cluster (cluster=remote cluster.address=http://HOST:8265)
  serve      bring a pipeline up to date, then serve its deployment until Ctrl-C
  ui         open the MLflow UI on this configuration's store
  artifacts  list | show STEP | verify [STEP ...] | gc: what is in the store

overrides   pipeline=NAME  steps.STEP.FIELD=VALUE  GROUP@steps.STEP=OPTION  cluster=local|remote|inline
            from=STEP  until=STEP  only=STEP  force=STEP       (several: from=[a,b])
flags       --help  --cfg job  --info  --multirun  --config-dir DIR  --shell-completion install=bash
"""

# What only a person can mend: no error of ours, so no traceback.
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)

VERBS = ("run", "plan", "submit", "serve", "ui", "artifacts")


def main() -> None:
    """The entry point of `bloomline` and of `python -m pipelines.cli`."""
    code = run(sys.argv[1:])
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    # Everything is closed by now, and where the head of a Ray cluster was lost, Ray's core would crash in the
    # interpreter's own end: the exit code is to be ours.
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"bloomline {version('bloomline')}")
        return 0
    from pipelines import hydra_flags

    if hydra_flags.completes(arguments):
        return hydra_flags.complete(arguments, VERBS)
    verb, rest = arguments[0], list(arguments[1:])
    try:
        if verb not in VERBS:
            raise BloomlineError(f"No verb {verb!r}. {nearest(verb, VERBS)} `bloomline --help` lists them.")
        action = _action(verb)
        with Session() as session:
            if hydra_flags.present(rest):
                return hydra_flags.run(rest, lambda overrides, composed: action(overrides, composed, session))
            return action(rest, None, session)
    except StageError as error:
        return tell(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        return tell(BloomlineError(f"{what}. What was finished is kept: run again once that is mended."))


Action = Callable[[list[str], Any, Session], int]


def _action(verb: str) -> Action:
    if verb == "artifacts":
        from pipelines import artifacts

        return artifacts.command
    from pipelines import verbs

    actions: dict[str, Action] = {
        "run": verbs.run,
        "plan": verbs.show_plan,
        "submit": verbs.submit,
        "serve": verbs.serve,
        "ui": verbs.ui,
    }
    return actions[verb]


if __name__ == "__main__":
    main()
