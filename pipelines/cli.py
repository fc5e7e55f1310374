"""The command line. The first word picks the verb, the rest are Hydra overrides and Hydra's own flags.

    bloomline plan pipeline=quickstart steps.pretrain.learning_rate=1e-3
    bloomline run from=pretrain
    bloomline run --multirun steps.pretrain.learning_rate=1e-3,3e-4

`plan`, and a `run` that finds everything cached, import neither ray, nor torch, nor mlflow.
"""

from __future__ import annotations

import os
import pwd
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
OWN_PACKAGES = (
    "cluster",
    "conf",
    "pipelines",
    "stages",
)  # as in stages.packages, imported after the check
USAGE = """\
usage: bloomline VERB [OVERRIDE ...] [HYDRA FLAG ...]

verbs
  run        plan a pipeline, then run every step that is not cached
  plan       show what a run would do, and why; exit code 0 if it could start
  submit     start the same run as a Ray job on a cluster (cluster=remote cluster.address=http://HOST:8265)
  attach ID  follow a submitted job again, with the same cluster.address
  jobs       list | logs JOB [--follow] | stop JOB | retry JOB: the jobs that a cluster knows
  manifest   write KubeRay's YAML of this pipeline: kind=RayCluster, RayJob or RayService
  serve      run a pipeline, then serve its deployment until Ctrl-C
  ui         show the runs of the store as they go on, and open the MLflow UI on it
  artifacts  list | show STEP | verify [STEP ...] | gc: manage what is in the store
  runs       list | show RUN | diff RUN RUN | delete RUN: the runs that the store remembers
  logs RUN   the steps that have logs; logs RUN STEP: what it printed   (rank=N, worker=N, --follow)
  doctor     check the installation, the cluster, the store and the tracking server
  stages     list the stages, or the fields of one: stages NAME
  pipelines  list the pipelines
  new DIR    write a small project, which runs at once

overrides   pipeline=NAME  steps.STEP.FIELD=VALUE  GROUP@steps.STEP=OPTION  cluster=local|remote|inline
            from=STEP  until=STEP  only=STEP  force=STEP       (several: 'from=[a,b]')
flags       --help  --cfg job  --info  --multirun  --config-dir DIR  --shell-completion install=bash
"""

# What `VERB --help` prints of the verbs that run no pipeline. Of the others, Hydra shows the composed configuration.
USAGE_OF = {
    "ui": """\
usage: bloomline ui [OVERRIDE ...]

Serves two pages on the store of this configuration, for this machine only and until Ctrl-C: one with its runs as they
go on (graph, curves, logs), and the MLflow UI. Overrides such as store.root=DIR choose another store.
""",
    "attach": """\
usage: bloomline attach ID cluster=remote cluster.address=http://HOST:8265

Follows a submitted job from the beginning of its log to its end. `submit` prints the ID. The exit code is that of the
job; 75 if the connection was lost.
""",
    "jobs": """\
usage: bloomline jobs list cluster=remote cluster.address=http://HOST:8265
       bloomline jobs logs JOB [--follow]
       bloomline jobs stop JOB
       bloomline jobs retry JOB

Lists the jobs that a cluster knows, shows the log of one, stops one, or submits the same command again, which continues
from what is in the store. All of them need the address of the cluster, as `list` does.
""",
    "manifest": """\
usage: bloomline manifest kind=RayCluster|RayJob|RayService cluster=remote [OVERRIDE ...]

Prints the manifest with which KubeRay makes a cluster, runs a pipeline on its own cluster, or serves its
deployment. cluster.kubernetes.* gives the image, the nodes and the secrets.
""",
    "artifacts": """\
usage: bloomline artifacts list [STEP ...]
       bloomline artifacts show STEP
       bloomline artifacts verify [STEP ...]
       bloomline artifacts gc [scratch] [dry-run]
       bloomline artifacts gc unused [older=30d] [larger=1GB] [pipeline=NAME] [remove]

Lists the artifacts in the store, shows one, checks their files, or removes what killed runs left. With `unused` it
prints the artifacts that are not the latest of a step, and removes them once `remove` is added. Overrides such as
store.root=DIR choose another store.
""",
    "runs": """\
usage: bloomline runs list [PIPELINE ...] [sweep=ID] [limit=20]
       bloomline runs show RUN
       bloomline runs diff RUN RUN
       bloomline runs delete RUN ...

Lists the runs that the store remembers, shows one, compares two, or forgets some; artifacts stay. RUN is an id, the
beginning or the end of one, or `latest`. Overrides such as store.root=DIR choose another store.
""",
    "logs": """\
usage: bloomline logs RUN
       bloomline logs RUN STEP [rank=N | worker=N] [--follow]

Lists the steps and processes of a run that have logs, or shows what those of a step printed. With --follow (or -f) also
what they print from now on, until the step has ended. RUN is an id, the beginning or the end of one, or `latest`.
Overrides such as store.root=DIR choose another store.
""",
    "doctor": """\
usage: bloomline doctor [OVERRIDE ...]

Checks this installation, and the cluster, the store and the tracking of the configuration, with the same overrides as
`run`: bloomline doctor store.root=s3://BUCKET/PREFIX cluster=remote cluster.address=HOST:6379. For each trouble it says
what to do. What it writes, it removes again. The exit code is 0 if nothing fails.
""",
    "stages": """\
usage: bloomline stages [NAME]

Lists the stages, or the fields of one with their types, defaults and descriptions.
""",
    "pipelines": """\
usage: bloomline pipelines

Lists the pipelines: the shipped ones, and those of your directories of configurations.
""",
    "new": """\
usage: bloomline new DIR

Writes a small project to the new or empty directory DIR: a pipeline, a package with one stage, and a test of it.
The project runs at once: cd DIR && bloomline run
""",
}

# Each verb with the words that may follow it. Other words may follow some, see WITH_WORDS.
VERBS: dict[str, Sequence[str]] = {
    **dict.fromkeys(("run", "plan", "submit", "serve", "ui", "doctor"), ()),
    "artifacts": ("list", "show", "verify", "gc"),
    "runs": ("list", "show", "diff", "delete"),
    "jobs": ("list", "logs", "stop", "retry"),
    **dict.fromkeys(("attach", "manifest", "logs", "stages", "pipelines", "new"), ()),
}
OWN_FLAGS = dict.fromkeys(("logs", "jobs"), ("--follow", "-f"))  # that are not Hydra's: a word to the verb
WITH_WORDS = ("artifacts", "runs", "jobs", "logs", "attach", "stages", "new")


def main() -> None:
    """The entry point of `bloomline` (by way of `bloomline.py`) and of `python -m pipelines.cli`."""
    _import_own_packages_first()
    # The processes that are started from here don't import from the working directory either.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    from cluster import submitted_job
    from pipelines import standard_streams
    from pipelines.termination import Terminated

    standard_streams.prepare()
    submitted_job.take_forwarded_environment()
    if said := submitted_job.lacking():
        print(said, flush=True)
    _expect_user()
    try:
        _expect_signals()
        code = run(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        number = interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT
        if isinstance(interrupt, Terminated):
            print(f"Stopped by {signal.Signals(number).name}.", file=sys.stderr)
        code = 128 + number
    if lost := standard_streams.finish():
        print(f"Not all output could be written: {lost.strerror}.", file=sys.stderr)
        code = code or 1
    # Everything is closed by now. If the head of a Ray cluster was lost, Ray's core would crash while the interpreter
    # ends, and change the exit code.
    os._exit(code)


def _expect_user() -> None:
    """Complete the environment of a user whom the user database does not know, as container runtimes do.

    We and several libraries ask for the name and for the home directory. Nothing can be kept in this one, and a home
    that can't be written to is not an error.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("HOME", "/")
        os.environ.setdefault("USER", str(os.getuid()))


def _import_own_packages_first() -> None:
    """Put our root first on the search path: a `cluster.py` of the user's must not be imported as our `cluster`.

    Ends the process if such a module was imported before.
    """
    if sys.path[:1] != [str(ROOT)]:
        if not sys.flags.safe_path:
            del sys.path[0]  # `python -m pipelines.cli`: the working directory
        sys.path.insert(0, str(ROOT))
    for name in OWN_PACKAGES:
        module = sys.modules.get(name)
        if module is not None and (found := _location(module)) != ROOT / name:
            print(f"bloomline can't import its own package {name!r}: {found} was imported before.", file=sys.stderr)
            print("Rename that file, or take its directory off PYTHONPATH.", file=sys.stderr)
            sys.exit(2)


def _location(module: ModuleType) -> Path | None:
    """The directory of an imported package, or the file of an imported module."""
    folders = list(getattr(module, "__path__", []))
    file = folders[0] if folders else module.__file__
    return Path(file).resolve() if file else None


def _expect_signals() -> None:
    """Make a signal end the command without a traceback, at once as long as nothing is open."""
    number = signal.SIGINT
    before = signal.getsignal(number)  # SIG_IGN in a command that a shell started in the background
    if before is signal.default_int_handler:
        signal.signal(number, signal.SIG_DFL)
    from pipelines import session, termination  # noqa: F401  imports most of the modules that take time to import

    signal.signal(number, before)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, termination.terminate)


def run(arguments: Sequence[str]) -> int:
    """Execute a command line and return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"bloomline {version('bloomline')}")
        return 0
    from cluster.extras import missing_extra
    from pipelines import hydra_flags, own_keys
    from pipelines.errors import BloomlineError, disk_error, nearest, show_error
    from pipelines.session import Session
    from stages.base import StageError

    if hydra_flags.completes(arguments):
        return hydra_flags.complete(arguments, VERBS)
    verb, rest = arguments[0], list(arguments[1:])
    try:
        _expect_working_directory()
        if verb not in VERBS:
            raise BloomlineError(f"Unknown verb {verb!r}. {nearest(verb, VERBS)} `bloomline --help` lists them.")
        if verb in USAGE_OF and not {"-h", "--help"}.isdisjoint(rest):
            print(USAGE_OF[verb], end="")
            return 0
        action = _action(verb)
        flags, overrides, words = hydra_flags.split(rest, OWN_FLAGS.get(verb, ()))
        if verb in WITH_WORDS:
            action = partial(action, words)
        elif words:
            raise hydra_flags.not_an_override(words[0])
        with Session() as session:
            if verb == "run" and "--multirun" in flags:
                from pipelines.sweep import command

                return command.run(flags, overrides, session)
            if flags:
                others = own_keys.split(verb, overrides)[1]
                own = [one for one in overrides if one not in others]
                return hydra_flags.run(flags, others, lambda given, composed: action([*own, *given], composed, session))
            return action(overrides, None, session)
    except StageError as error:
        return show_error(error)
    except ModuleNotFoundError as error:
        if refusal := missing_extra(error):
            return show_error(BloomlineError(refusal))
        raise
    except OSError as error:  # a full disk, or a directory that may not be read
        return show_error(BloomlineError(disk_error(error)))


def _expect_working_directory() -> None:
    from pipelines.errors import BloomlineError

    try:
        os.getcwd()
    except FileNotFoundError:
        raise BloomlineError("The working directory was removed. Change to another one: cd DIR") from None


def _action(verb: str) -> Callable[..., int]:
    """The function of a verb. Its arguments are the words after the verb, if the verb takes any, the overrides, the
    DictConfig if Hydra composed one (else None), and the session."""
    if verb == "artifacts":
        from pipelines import artifacts

        return artifacts.command
    if verb == "runs":
        from pipelines import runs_command

        return runs_command.command
    if verb == "logs":
        from pipelines.logs import command as logs_command

        return logs_command.command
    if verb in ("jobs", "manifest"):
        from pipelines import cluster_commands

        return cluster_commands.jobs if verb == "jobs" else cluster_commands.manifest
    if verb in ("stages", "pipelines"):
        from pipelines import listing

        return listing.show_stages if verb == "stages" else listing.show_pipelines
    if verb == "new":
        from pipelines import new_project

        return new_project.command
    from pipelines import verbs

    actions: dict[str, Callable[..., int]] = {
        "run": verbs.run,
        "plan": verbs.show_plan,
        "submit": verbs.submit,
        "attach": verbs.attach,
        "serve": verbs.serve,
        "ui": verbs.ui,
        "doctor": verbs.doctor,
    }
    return actions[verb]


if __name__ == "__main__":
    main()
