"""The state of a sweep: the space, the settings, and the trials so far, in memory and in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException

from hydra_plugins.active_exploration._syntax import literal, split
from stages.exploration.contextual import Settings, Trial, propose
from stages.exploration.space import Configuration, Space, Value

SIGN = {"minimize": -1.0, "maximize": 1.0}
OWN = ("budget", "beta", "beta_scale", "confidence", "initial", "failure_penalty", "policy", "seed")


@dataclass
class Search:
    """A sweep in progress. Values of trials are those of the task, times -1 where they are to be minimised."""

    space: Space
    keys: dict[str, str]  # of the overrides, by parameter
    settings: Settings
    fixed: list[str]
    direction: str
    batch: int
    replicates: int
    replicate_key: str | None
    storage: Path | None
    output: Path
    trials: list[Trial] = field(default_factory=list)
    jobs_done: int = 0

    @classmethod
    def create(cls, values: Mapping[str, Any], arguments: Sequence[str], is_group: Callable[[str], bool]) -> Search:
        """From the values of the configuration and the overrides of the command line.

        `is_group` tells a group of configuration files from a key of the configuration. Raises HydraException.
        """
        fixed, space, keys = split(
            arguments,
            values["contexts"] or {},
            values["actions"] or {},
            values["conditions"] or {},
            lambda key: "" if is_group(key) else values["key_prefix"],
        )
        _check(values)
        storage = Path(values["storage"]) if values["storage"] else None
        search = cls(
            space=space,
            keys=keys,
            settings=Settings(
                **{name: values[name] for name in OWN}, contexts=values["max_contexts"], actions=values["max_actions"]
            ),
            fixed=fixed,
            direction=values["direction"],
            batch=values["batch"],
            replicates=values["replicates"],
            replicate_key=values["replicate_key"],
            storage=storage,
            output=Path(values["output"]),
            trials=_read(storage, values["direction"], space) if storage and storage.exists() else [],
        )
        search.jobs_done = len(search.trials) * search.replicates
        return search

    def next_batch(self) -> list[dict[str, Value]]:
        """The configurations of the next trials; none once the budget is spent."""
        count = min(self.batch, self.settings.budget - len(self.trials))
        return propose(self.space, self.trials, self.settings, count) if count > 0 else []

    def jobs(self, configuration: Configuration) -> list[list[str]]:
        """The overrides of the jobs of a trial."""
        chosen = [f"{self.keys[name]}={literal(value)}" for name, value in configuration.items()]
        seeds = [[f"{self.replicate_key}={index}"] if self.replicate_key else [] for index in range(self.replicates)]
        return [[*self.fixed, *chosen, *seed] for seed in seeds]

    def finish(self, configuration: Configuration, results: Sequence[JobReturn]) -> None:
        """Add the trial of a configuration whose jobs have ended. Raises HydraException for a task without a number."""
        measured = [value for one in results if (value := _value(one)) is not None]
        trial = Trial(configuration, tuple(SIGN[self.direction] * value for value in measured))
        self.trials.append(trial)
        if self.storage:
            self.storage.parent.mkdir(parents=True, exist_ok=True)
            line = {"configuration": dict(configuration), "values": measured, "direction": self.direction}
            with self.storage.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def describe_last(self) -> str:
        trial = self.trials[-1]
        where = " ".join(f"{key}={literal(value)}" for key, value in trial.configuration.items())
        value = "failed" if trial.failed else f"{SIGN[self.direction] * sum(trial.values) / len(trial.values):.6g}"
        return f"Trial {len(self.trials)} of {self.settings.budget}: {where} -> {value}"


def _check(values: Mapping[str, Any]) -> None:
    if values["budget"] is None:
        raise HydraException("active exploration: hydra.sweeper.budget is not set; expected the number of trials.")
    whole = ("budget", "batch", "replicates", "max_contexts", "max_actions")
    wrong = [(name, values[name], "a whole number, 1 or more") for name in whole if values[name] < 1]
    if values["direction"] not in SIGN:
        wrong.append(("direction", values["direction"], "minimize or maximize"))
    if values["policy"] not in ("last", "best_round"):
        wrong.append(("policy", values["policy"], "last or best_round"))
    if not 0 < values["confidence"] < 1:
        wrong.append(("confidence", values["confidence"], "a number between 0 and 1"))
    wrong += [
        (name, values[name], "0 or more")
        for name in ("beta", "beta_scale", "initial", "failure_penalty")
        if values[name] is not None and values[name] < 0
    ]
    if wrong:
        name, found, expected = wrong[0]
        raise HydraException(f"active exploration: hydra.sweeper.{name} is {found!r}; expected {expected}.")


def _value(result: JobReturn) -> float | None:
    """What a job measured; None if it failed, or if the number is not finite."""
    if result.status != JobStatus.COMPLETED:
        return None
    returned = result.return_value
    if isinstance(returned, bool) or not isinstance(returned, int | float):
        try:
            returned = float(returned)  # a number of numpy or torch
        except (TypeError, ValueError):
            raise HydraException(
                f"active exploration: the task returned {returned!r}; expected a number, its objective. Raise an "
                "exception, or return nan, for a trial that failed."
            ) from None
    return float(returned) if math.isfinite(returned) else None


def _read(storage: Path, direction: str, space: Space) -> list[Trial]:
    """The trials of a file that an earlier sweep wrote. Raises HydraException for one of another space."""
    found = []
    lines = storage.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, text in enumerate(lines, 1):
        if number == len(lines) and not text.endswith("\n"):
            storage.write_text("".join(lines[:-1]), encoding="utf-8")  # the last line of a sweep that was killed
            break
        try:
            line = json.loads(text)
            configuration, values = line["configuration"], tuple(map(float, line["values"]))
            space.encode([configuration])
            known = {one.name for one in space.parameters}
            if line["direction"] != direction or not set(configuration) <= known:
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise HydraException(
                f"active exploration: {storage}:{number}: not a trial of this sweep; expected the same parameters, "
                "values and direction. Choose another hydra.sweeper.storage."
            ) from error
        found.append(Trial(configuration, tuple(SIGN[direction] * value for value in values)))
    return found
