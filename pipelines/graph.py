"""Steps and edges: from plain values to a checked graph, its order, and the selection of a part of it.

`build` is where typed wiring happens: every stage name, field, value and edge is checked, and all problems are
reported together, before anything starts.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, StringConstraints, ValidationError

from pipelines import validation
from pipelines.errors import BloomlineError, ConfigError, Problem, nearest, remedy_of
from stages import registry
from stages.base import Artifact, Demand, Edge, Forecast, Resources, Stage, StageError, edges
from stages.registry import RegistryError

STEP_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class StepOptions(BaseModel):
    """The keys of a step in YAML that are not fields of its stage. They are never part of the fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resources: Resources | None = None  # of the step's own process; replaces what its stage requests
    retries: NonNegativeInt = 0  # how many times a step is started again after it failed or was lost
    # The first digits of the step's fingerprint: what would change it, or compute it again, is refused.
    pin: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] | None = None


@dataclass(frozen=True)
class Step:
    """One node of a pipeline: a stage with its values, and the steps that feed it."""

    name: str
    stage_name: str
    stage: Stage
    edges: tuple[tuple[str, Edge], ...]  # dotted field key -> edge
    produces: type[Artifact]
    options: StepOptions = StepOptions()
    shown: Any = None  # the values in YAML as they may be shown and stored

    @property
    def inputs(self) -> tuple[str, ...]:
        """The steps that feed this one, each once, in the order of the fields."""
        return tuple(dict.fromkeys(edge.step for _, edge in self.edges))

    def demand(self) -> Demand:
        demand = self.stage.demand()
        return demand.model_copy(update={"task": self.options.resources}) if self.options.resources else demand


@dataclass(frozen=True)
class Graph:
    """A pipeline: its steps by name, in an order in which they can run."""

    name: str
    steps: Mapping[str, Step]

    def downstream(self, names: Iterable[str]) -> set[str]:
        """The named steps and every step that depends on them."""
        found = set(names)
        for step in self.steps.values():
            if found.intersection(step.inputs):
                found.add(step.name)
        return found

    def upstream(self, names: Iterable[str]) -> set[str]:
        """The named steps and every step that they depend on."""
        found = set(names)
        for step in reversed(list(self.steps.values())):
            if step.name in found:
                found.update(step.inputs)
        return found

    def packages(self) -> list[Path]:
        """The users' packages that its steps need wherever they run, and those of the project: a directory each, or a
        module."""
        names = {name for step in self.steps.values() for name in _packages_of(step.stage) if name}
        names |= {name for step in self.steps.values() if (name := registry.package_of(step.produces))}
        return registry.package_paths([*registry.user_packages(), *sorted(names)])


def _packages_of(value: Any) -> set[str | None]:
    """The package of a config and of every config in its fields; None stands for bloomline's own."""
    if isinstance(value, BaseModel):
        inner = [_packages_of(getattr(value, name)) for name in type(value).model_fields]
        return {registry.package_of(type(value))}.union(*inner)
    if isinstance(value, Mapping):
        return set().union(*map(_packages_of, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return set().union(*map(_packages_of, value))
    return set()


def build(name: str, steps: Mapping[str, Any], shown: Mapping[str, Any] = {}) -> Graph:
    """Check plain values (step name -> fields) and make the graph of them. Raises ConfigError with every problem.

    `shown`: the same values as they may be shown and stored.
    """
    problems: list[Problem] = []
    made: dict[str, Step] = {}
    if not steps:
        problems.append(Problem("steps", "no step", "at least one", "Declare steps in conf/pipeline/*.yaml."))
    for step_name, fields in steps.items():
        try:
            made[step_name] = replace(_step(step_name, fields, steps), shown=shown.get(step_name))
        except ConfigError as error:
            problems.extend(error.problems)
    for step in made.values():
        problems.extend(_edge_problems(step, made, steps))
    if problems:
        raise ConfigError(problems)
    try:
        order = list(TopologicalSorter({step.name: step.inputs for step in made.values()}).static_order())
    except CycleError as error:
        loop = " -> ".join(reversed(error.args[1]))
        raise ConfigError([Problem("steps", f"a cycle: {loop}", "steps that can be put in an order")]) from None
    return Graph(name, _with_forecasts({step_name: made[step_name] for step_name in order}))


def _with_forecasts(steps: Mapping[str, Step]) -> Mapping[str, Step]:
    """The steps, in order, each with the forecasts of the artifacts that it reads.

    Raises ConfigError if a stage can tell from the forecasts that it would fail.
    """
    forecasts: dict[str, Forecast | None] = {}
    found: dict[str, Step] = {}
    for name, step in steps.items():
        produces = {source: steps[source].produces for source in step.inputs}
        stage = step.stage.with_forecasts(forecasts, produces) if produces else step.stage
        try:
            forecasts[name] = stage.forecast()
            stage.demand()
        except StageError as error:
            raise ConfigError([Problem(f"steps.{name}", str(error).rstrip("."), "")]) from None
        found[name] = replace(step, stage=stage)
    return found


def select(graph: Graph, from_: Collection[str], until: Collection[str], only: Collection[str]) -> set[str]:
    """The steps to run: `from_` and all that follow, `until` and all that precede it, or `only` the named ones.

    Raises ConfigError for a name that is not a step.
    """
    for key, names in (("from", from_), ("until", until), ("only", only)):
        check_names(graph, key, names)
    chosen = set(graph.steps)
    if from_:
        chosen &= graph.downstream(from_)
    if until:
        chosen &= graph.upstream(until)
    if only:
        chosen &= set(only)
    if not chosen:
        raise BloomlineError("The selection is empty: no step is both after `from` and before `until`.")
    return chosen


def check_names(graph: Graph, key: str, names: Collection[str]) -> None:
    """Raise ConfigError if one of `names` is not a step of the graph."""
    unknown = [name for name in names if name not in graph.steps]
    if unknown:
        raise ConfigError(
            Problem(key, repr(name), "the name of a step", nearest(name, graph.steps)) for name in unknown
        )


@cache
def produces(stage: type[Stage]) -> type[Artifact]:
    """The artifact type that a stage's `run` is annotated to return. Raises RegistryError if it is not."""
    name = f"{stage.__module__}.{stage.__name__}"
    where = f"{name}.run"
    if stage.run is Stage.run:
        raise RegistryError(f"{name} has no method `run`", "one that returns a subclass of Artifact")
    try:
        hints = typing.get_type_hints(stage.run)
    except NameError as error:  # a type that is imported for type checkers only
        raise RegistryError(f"{where} has an annotation that cannot be resolved: {error}", "imported types") from error
    if "return" not in hints:
        raise RegistryError(f"{where} has no annotation of what it returns", "a subclass of Artifact")
    found = hints["return"]
    if not (isinstance(found, type) and issubclass(found, Artifact) and found is not Artifact):
        written = str(None) if found is type(None) else getattr(found, "__name__", found)
        raise RegistryError(f"{where} is annotated to return {written}", "a subclass of Artifact")
    return found


def _step(name: str, fields: Any, declared: Mapping[str, Any]) -> Step:
    key = f"steps.{name}"
    if not STEP_NAME.fullmatch(name):
        expected = "a name of small letters, digits and underscores that begins with a letter"
        raise ConfigError([Problem(key, repr(name), expected)])
    if not isinstance(fields, Mapping):
        raise ConfigError([Problem(key, repr(fields), "a mapping with `stage` and its fields")])
    fields = dict(fields)
    stage_name = fields.pop("stage", None)
    if stage_name is None:  # probably an override with a misspelt step name
        others = [other for other, its in declared.items() if isinstance(its, Mapping) and its.get("stage")]
        expected = "the name of a stage, or the key of a step that is declared"
        raise ConfigError([Problem(f"{key}.stage", "missing", expected, nearest(name, others))])
    if not isinstance(stage_name, str):
        raise ConfigError([Problem(f"{key}.stage", repr(stage_name), "the name of a stage")])
    try:
        stage_type = registry.STAGES.load(stage_name)
        produced = produces(stage_type)
    except RegistryError as error:
        raise ConfigError([Problem(f"{key}.stage", error.found, error.expected, remedy_of(error))]) from error
    options = {option: fields.pop(option) for option in StepOptions.model_fields if option in fields}
    problems: list[Problem] = []
    try:
        checked = StepOptions.model_validate(options)
    except ValidationError as error:
        problems += validation.problems(key, StepOptions, error, options)
    try:
        stage = stage_type.model_validate(fields)
    except ValidationError as error:
        problems += validation.problems(key, stage_type, error, fields)
    if problems:
        raise ConfigError(problems)
    return Step(name, stage_name, stage, tuple(edges(stage)), produced, checked)


def _edge_problems(step: Step, made: Mapping[str, Step], declared: Mapping[str, Any]) -> Iterable[Problem]:
    for field, edge in step.edges:
        key = f"steps.{step.name}.{field}"
        expected = f"a step that makes a {edge.expects.__name__}"
        if edge.step in made:
            source = made[edge.step]
            if not issubclass(source.produces, edge.expects):
                fit = [
                    name for name, other in made.items() if issubclass(other.produces, edge.expects) and other != step
                ]
                found = f"step {edge.step!r} makes a {source.produces.__name__}"
                remedy = f"Steps that do: {', '.join(fit)}." if fit else "No step of this pipeline does."
                yield Problem(key, found, expected, remedy)
        elif edge.step not in declared:
            yield Problem(key, f"no step {edge.step!r}", expected, nearest(edge.step, declared))
