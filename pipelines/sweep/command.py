"""`bloomline run --multirun`: Hydra's sweeper chooses the jobs, and a sweep runs them."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pipelines import config, hydra_flags, outline, project
from pipelines.errors import BloomlineError, ConfigError
from pipelines.redaction import remember_overrides
from pipelines.session import Session
from pipelines.sweep import nested_sweeps
from pipelines.sweep.sweep import Sweep

T = TypeVar("T")
LAUNCHER = "hydra/launcher=bloomline"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
OPTUNA_FAILURES = "hydra.sweeper.max_failure_rate"  # 1: a sweep goes past failed jobs, as all sweeps do here
# conf/hydra/sweeper/active_exploration.yaml has the name of the plugin's own entry, which it names in its defaults.
OWN_SWEEPER = r"\s*'hydra/sweeper/active_exploration' is validated against ConfigStore schema"
DECLARING = ("pipeline=", "store", "hydra.searchpath=")  # the overrides that say where the store is


def run(flags: Sequence[str], given: Sequence[str], session: Session) -> int:
    """Run a sweep and return the largest exit code of its jobs. `flags`: Hydra's, with `--multirun`.

    Raises ConfigError for a configuration that cannot be composed.
    """
    places = [flag for flag in flags if flag.startswith(hydra_flags.PLACES)]
    where = [*places, *(override for override in given if override.lstrip("+").startswith("hydra."))]
    task = Task(Sweep(where, given, session))
    overrides = nested_sweeps.as_texts(project.find(Path.cwd()).overrides(given))
    remember_overrides(overrides)
    said = {override.lstrip("+").partition("=")[0] for override in overrides}
    if "hydra/launcher" not in said:
        overrides.insert(0, LAUNCHER)
    if "hydra/sweeper=optuna" in overrides and OPTUNA_FAILURES not in said:
        overrides.append(f"{OPTUNA_FAILURES}=1.0")
    code = 0
    try:
        with _directory(task.sweep.id, overrides) as directory, warnings.catch_warnings():
            warnings.filterwarnings("ignore", OWN_SWEEPER)
            overrides.insert(0, f"hydra.sweep.dir={project.quoted(str(directory))}")
            hydra_flags.call_hydra(task, [*flags, *config.prepare(overrides)], overrides)
    except ConfigError as error:
        if not task.sweep.jobs:
            raise
        raise BloomlineError(f"The sweep has ended: {error.problems[0].found}.") from error  # as the sweeper says
    except SystemExit as end:  # how Hydra ends; the code of a sweep is that of its jobs
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        ended = task.sweep.finish()
    if task.raised:
        raise task.raised[0]
    return ended or code


class Task:
    """What Hydra calls. An error that is not Hydra's own passes by Hydra, which would describe it as its own."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.raised: list[Exception] = []

    def __call__(self, composed: Any) -> float | None:
        """Run one job, for a launcher that has them run one after the other."""
        from hydra.core.hydra_config import HydraConfig

        self.add(list(HydraConfig.get().overrides.task), composed)
        return self.run()[0]

    def add(self, overrides: Sequence[str], composed: Any) -> None:
        self._pass(lambda: self._add(overrides, composed))

    def refuse(self, overrides: Sequence[str], error: Exception) -> None:
        """Add a job whose configuration Hydra could not compose."""
        try:
            with config.composing(overrides):
                raise error
        except ConfigError as refused:
            self.sweep.refuse(overrides, refused)

    def run(self) -> list[float | None]:
        """Run the jobs that were added. The objective of each, if it has one."""
        return self._pass(self.sweep.run)

    def _add(self, overrides: Sequence[str], composed: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        sweeper = str(HydraConfig.get().sweeper._target_)
        self.sweep.add(overrides, composed)
        if sweeper != BASIC_SWEEPER and self.sweep.settings.metric is None and self.sweep.jobs[-1].prepared:
            self.sweep.jobs.clear()
            raise BloomlineError(
                f"{sweeper.rpartition('.')[2]} needs a number to compare jobs by. Name the last value of a metric of a "
                "step, for example sweep.objective=steps.evaluate.bits_per_byte."
            )

    def _pass(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except Exception as error:
            self.raised.append(error)
            sys.exit(1)


@contextlib.contextmanager
def _directory(sweep: str, overrides: Sequence[str]) -> Iterator[Path]:
    """Where a sweeper can leave files: with the sweep in the store, or nowhere if the store is not known yet."""
    with TemporaryDirectory(prefix="bloomline-multirun-") as temporary:
        try:
            declaring = [override for override in overrides if override.startswith(DECLARING) and "," not in override]
            directory = outline.compose(declaring).settings.store.state / "runs" / sweep / "sweeper"
        except ConfigError:
            directory = Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            yield directory
        finally:
            (directory / "multirun.yaml").unlink(missing_ok=True)  # Hydra's; every run has its own configuration
            with contextlib.suppress(OSError):
                directory.rmdir()
