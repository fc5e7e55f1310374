"""The command line's entry point (`bloomline`, and `python -m bloomline`), and the Python API for notebooks.

    import bloomline

    bloomline.run(["pipeline=debug", "steps.pretrain.learning_rate=1e-3"])
    for run in bloomline.runs(pipeline="debug"):
        print(run.name, run.headlines)
    model = bloomline.load("pretrain", pipeline="debug")

The top-level packages of this project have common names, and a user's project may have a folder `pipelines/` on
PYTHONPATH. The name of this module is unlikely to be taken. It therefore sets the search path before any of those
packages is imported.
"""

# Both modules are a part of the interpreter. Nothing else may be imported before the search path is set.
import os
import sys

TYPE_CHECKING = False  # as typing has it, which is not imported
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.api import Run, RunFailedError
    from pipelines.config import Composition
    from pipelines.errors import BloomlineError, ConfigError
    from stages.base import Artifact

__all__ = ["BloomlineError", "ConfigError", "RunFailedError", "compose", "load", "run", "runs"]


def __getattr__(name: str) -> type[Exception]:
    """The errors that the functions raise. They are of packages that may only be imported once the path is set."""
    if name in ("BloomlineError", "ConfigError", "RunFailedError"):
        _own_packages_first()
        from pipelines import api

        found: type[Exception] = getattr(api, name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def compose(overrides: "Sequence[str]" = ()) -> "Composition":
    """The configuration that overrides stand for, checked: `compose(["pipeline=debug", "steps.pretrain.steps=5"])`.

    `graph.steps` has the steps with their stages, `settings` the rest. Raises ConfigError with every problem.
    """
    _own_packages_first()
    from pipelines import api

    return api.compose(overrides)


def run(overrides: "Sequence[str]" = ()) -> "Run":
    """Run a pipeline as `bloomline run` does, with its output, and return the run.

    If everything is cached, nothing is started, and the run has the cached steps. Raises RunFailedError if a step
    fails, or is blocked so that nothing was started, and ConfigError for a configuration that is not valid.
    """
    _own_packages_first()
    from pipelines import api

    return api.run(overrides)


def runs(
    pipeline: str | None = None, sweep: str | None = None, limit: int | None = None, overrides: "Sequence[str]" = ()
) -> "list[Run]":
    """The runs that the store remembers, the latest first.

    `pipeline`, `sweep`: only theirs. `limit`: at most this number of them. `overrides`: where the store is, such as
    `store.root=DIR`.
    """
    _own_packages_first()
    from pipelines import api

    return api.runs(pipeline, sweep, limit, overrides)


def load(step: str, pipeline: str | None = None, overrides: "Sequence[str]" = ()) -> "Artifact":
    """The latest artifact of a step of a pipeline, opened. Every digest of its files is checked.

    `pipeline` None: the default pipeline. The artifact of one run is `run.load(step)`. Raises BloomlineError if there
    is none, or if it is damaged.
    """
    _own_packages_first()
    from pipelines import api

    return api.load(step, pipeline, overrides)


def main() -> None:
    # Python puts the working directory (`python -m bloomline`) or that of the script first. A file there would be
    # imported in place of the library that has its name.
    if not sys.flags.safe_path and os.path.isdir(sys.path[0] or os.curdir):
        del sys.path[0]
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    from pipelines import cli

    cli.main()


def _own_packages_first() -> None:
    root = os.path.dirname(os.path.realpath(__file__))
    if sys.path[:1] != [root]:
        sys.path.insert(0, root)


if __name__ == "__main__":
    main()
