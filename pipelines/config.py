"""From Hydra to typed values. A DictConfig becomes `Settings` and a `Graph`, or one ConfigError.

Composition is Hydra's (defaults list, groups, overrides, `hydra.searchpath`); validation is ours. Overrides of fields
are made add-or-override, so that every field of a stage can be set whether or not a YAML mentions it; a name
that no stage has is then refused by the stage's own type, with the nearest valid one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from cluster.config import ClusterConfig, Port
from cluster.process_setup import ENVIRONMENT_LOCK
from pipelines import composition_cache, missing_key, project, redaction, resolution, termination, validation
from pipelines.errors import ConfigError, Problem, nearest
from pipelines.graph import Graph, build, check_names
from pipelines.hydra_sources import Noted, noting
from pipelines.logs_config import LogsConfig
from pipelines.override_problems import FORCED, grammar_problem, no_file_problem, override_problem
from pipelines.project import Packages
from pipelines.store import StoreConfig
from pipelines.sweep_config import SweepConfig
from pipelines.tracking.tracking_config import TrackingConfig
from stages.base import Config

CONFIG_DIRECTORY = Path(__file__).resolve().parents[1] / "conf"  # by its place: a user may have a package `conf`
CONFIG_NAME = "config"
# What our own types check better than Hydra's struct flag.
TYPED = ("steps.", "cluster.", "store.", "tracking.", "sweep.", "logs.")
# Hydra puts the keys of a pipeline's file below `pipeline` without this line, and below NAME with `# @package NAME`.
NO_PACKAGE_LINE = Problem(
    "pipeline", "the file of the chosen pipeline has no line `# @package _global_`", "it as the first line"
)
DECLARING = ("pipeline", "hydra.searchpath")  # the overrides that say which files declare a pipeline
VERSION_BASE = "1.3"  # Hydra 1.4 deprecates the argument: this is the one place to change


def _names(value: Any) -> Any:
    """`a`, `a,b`, `[a,b]` or null: a tuple of step names."""
    if value is None:
        return ()
    return tuple(part for part in value.split(",") if part) if isinstance(value, str) else value


StepNames = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Settings(Config):
    """A configuration without the steps."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")  # of the pipeline
    cluster: ClusterConfig
    port: Port | None = None  # of served applications; a cluster's serve_port is this one
    store: StoreConfig
    tracking: TrackingConfig
    sweep: SweepConfig = SweepConfig()
    logs: LogsConfig = LogsConfig()
    packages: Packages = ()  # of the user's project
    text: str | tuple[str, ...] = ()  # what a pipeline of own text reads, which its YAML hands to a step
    from_: StepNames = Field((), alias="from")
    until: StepNames = ()
    only: StepNames = ()
    force: StepNames = ()


@dataclass(frozen=True)
class Composition:
    """A configuration as composed and checked."""

    settings: Settings
    graph: Graph
    values: Mapping[str, Any]  # plain and resolved
    shown: Mapping[str, Any]  # the same as it may be shown and stored

    def yaml(self) -> str:
        """The whole configuration as YAML, as it would be written in one file, without secrets.

        A value that comes from the environment is written as the reference to it.
        """
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create(dict(self.shown)))


def compose(overrides: Sequence[str]) -> Composition:
    """Compose the configuration from Hydra overrides and check it. Raises ConfigError."""
    with ENVIRONMENT_LOCK:  # a signing key that were missing for a moment would switch the verification off
        return _composition(project.find(Path.cwd()).overrides(overrides))


def _composition(overrides: Sequence[str]) -> Composition:
    redaction.remember_overrides(overrides)
    if (composition := _remembered(overrides)) is not None:
        return composition
    composed = _compose(overrides)
    composition = check_values(composed.values, composed.shown)
    if composed.repeatable and not redaction.holds_secrets(composed.unresolved):
        composition_cache.save(overrides, composed.unresolved, composed.noted.paths, composed.noted.resolvers)
    return composition


def compose_values(overrides: Sequence[str]) -> Mapping[str, Any]:
    """Compose the configuration from Hydra overrides without checking it. Raises ConfigError if Hydra can't."""
    overrides = project.find(Path.cwd()).overrides(overrides)
    return _compose(overrides, must_be_whole=False).unresolved


def pipelines_available() -> list[str]:
    """The names of the shipped pipelines, and of those of the project."""
    own = project.find(Path.cwd()).config
    places = [CONFIG_DIRECTORY, *([own] if own else [])]
    return sorted({path.stem for place in places for path in (place / "pipeline").glob("*.yaml")})


def check(composed: Any) -> Composition:
    """Turn a DictConfig that Hydra composed into checked values. Raises ConfigError with every problem."""
    with ENVIRONMENT_LOCK:
        composed = _without_hydra(composed)
        return check_values(_resolved(composed), resolution.resolved_without_environment(composed))


@contextmanager
def composing(overrides: Sequence[str]) -> Iterator[Noted]:
    """Within, Hydra composes: what it reads is checked and noted, and what it refuses is a ConfigError in our terms."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with termination.not_lost(), noting() as noted:
            yield noted
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([_composition_problem(error, overrides)]) from error
    except RecursionError as error:
        raise ConfigError([Problem("config", "files or values that name each other without end", "")]) from error
    except (ValueError, TypeError, AssertionError) as error:  # what Hydra raises for a defaults list
        raise ConfigError([_group_problem(overrides) or Problem("config", resolution.first_line(error), "")]) from error


def _remembered(overrides: Sequence[str]) -> Composition | None:
    """A composition that the cache holds; None if it holds none. Raises ConfigError if its values are not valid."""
    unresolved = composition_cache.load(overrides)
    if unresolved is None:
        return None
    from omegaconf import OmegaConf

    literal = resolution.literal_steps(unresolved)  # OmegaConf would take most of the time of a plan for them
    others = dict(unresolved)
    if literal:
        others["steps"] = {name: step for name, step in unresolved["steps"].items() if name not in literal}
    composed = OmegaConf.create(others)
    try:
        values = _resolved(composed)
    except ConfigError:  # an interpolation that needs Hydra after all, or that is an error: it is composed again
        return None
    shown = resolution.resolved_without_environment(composed)
    if literal:
        for one in (values, shown):
            found = literal | one["steps"]
            one["steps"] = {name: found[name] for name in unresolved["steps"]}
    return check_values(values, shown)


@dataclass(frozen=True)
class _Composed:
    """What Hydra composed, as plain values."""

    unresolved: dict[str, Any]
    values: dict[str, Any]  # resolved
    shown: dict[str, Any]  # resolved, but for what comes from the environment
    choices: dict[str, Any]  # the files that were chosen, by group@package
    repeatable: bool  # from files alone
    noted: Noted  # the resolvers: those that were called to resolve the values


def _compose(overrides: Sequence[str], must_be_whole: bool = True) -> _Composed:
    """Compose with Hydra. Raises ConfigError.

    `must_be_whole`: a mandatory value (???) that nobody gave, or an interpolation of nothing, is an error; otherwise
    the values are not resolved.
    """
    with composing(overrides) as noted:
        from hydra import compose as hydra_compose
        from hydra import initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONFIG_DIRECTORY), version_base=VERSION_BASE):
            composed = hydra_compose(CONFIG_NAME, overrides=prepare(overrides), return_hydra_config=True)
        places = [(source.schema, source.path) for source in composed.hydra.runtime.config_sources]
        repeatable = all(map(_is_known_place, places)) and composition_cache.is_repeatable(noted)
        noted.resolvers.clear()
        choices = {str(place): chosen for place, chosen in composed.hydra.runtime.choices.items()}
        unresolved = plain(composed)
        values = _resolved(composed) if must_be_whole else {}
        shown = resolution.resolved_without_environment(composed) if must_be_whole else {}
        return _Composed(unresolved, values, shown, choices, repeatable, noted)


def _is_known_place(place: tuple[str, str]) -> bool:
    """Whether what Hydra reads at a place of its search path is noted, or is Hydra's own."""
    schema, path = place
    return schema in ("file", "structured") or not path or (schema, path) == ("pkg", "hydra.conf")


def _without_hydra(composed: Any) -> Any:
    from omegaconf import open_dict

    with open_dict(composed):
        composed.pop("hydra", None)
    return composed


def plain(composed: Any) -> dict[str, Any]:
    """A DictConfig that Hydra composed as plain values, unresolved."""
    return resolution.unresolved(_without_hydra(composed))


def _resolved(composed: Any) -> dict[str, Any]:
    """A DictConfig as plain values. Raises ConfigError if a value is missing or an interpolation is of nothing."""
    found = resolution.resolved(composed)
    unknown = {*found} - {*validation.field_names(Settings), "steps"}
    if any(isinstance(found[key], dict) and (key == "pipeline" or "steps" in found[key]) for key in unknown):
        raise ConfigError([NO_PACKAGE_LINE])
    return found


def check_values(values: Mapping[str, Any], written: Mapping[str, Any] | None = None) -> Composition:
    """Check plain values: the settings, the steps and the edges. Raises ConfigError with every problem.

    `written`: the same values, in which those that come from the environment are not resolved.
    """
    shown = redaction.shown_config(values if written is None else written)
    redaction.remember(values, shown)
    problems: list[Problem] = []
    settings: Settings | None = None
    try:
        settings = check_settings(values)
    except ConfigError as error:
        problems += error.problems
    name = str(values.get("name"))
    graph: Graph | None = None
    steps = values.get("steps") or {}
    try:
        project.find(Path.cwd()).use(settings.packages if settings else ())
        if not isinstance(steps, Mapping):
            found = "a list" if isinstance(steps, list) else repr(steps)
            raise ConfigError([Problem("steps", found, "a mapping of the names of steps to their fields")])
        shown_steps = shown.get("steps")
        graph = build(name, steps, shown_steps if isinstance(shown_steps, Mapping) else {})
    except ConfigError as error:
        problems += error.problems
    if problems or settings is None or graph is None:
        raise ConfigError(shown_problem(problem, shown) for problem in problems)
    for key in ("from_", "until", "only", "force"):
        check_names(graph, key.rstrip("_"), getattr(settings, key))
    if metric := settings.sweep.metric:
        check_names(graph, "sweep.objective", [metric[0]])
    return Composition(settings, graph, values, shown)


def check_settings(values: Mapping[str, Any]) -> Settings:
    """Check plain values without the steps among them. Raises ConfigError with every problem."""
    others = {key: value for key, value in values.items() if key != "steps"}
    try:
        return Settings.model_validate(others)
    except ValidationError as error:
        raise ConfigError(validation.problems("", Settings, error, others)) from error


def shown_problem(problem: Problem, shown: Mapping[str, Any]) -> Problem:
    """A problem that names a value of the environment, or a secret, by its reference only."""
    value: Any = shown
    for part in problem.key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if not redaction.is_hiding(value):
        return problem
    remedy = "" if problem.found.strip("'") in problem.remedy else problem.remedy
    return replace(problem, found=repr(value), remedy=remedy)


def prepare(overrides: Iterable[str]) -> list[str]:
    """Overrides for Hydra, in which those of fields add the field or override it. Raises ConfigError.

    An override is refused if it is larger than Hydra's parser can bear, or hides the secret that it should give.
    """
    overrides = list(overrides)
    if problems := [problem for override in overrides if (problem := override_problem(override))]:
        raise ConfigError(problems)
    return [
        f"{FORCED}{override.lstrip('+')}" if override.lstrip("+").startswith(TYPED) else override
        for override in overrides
    ]


def _meant(key: str, overrides: Sequence[str]) -> str:
    """What to write instead of a key that the configuration does not have, as the steps of the pipeline say."""
    files = declaring(overrides)
    value = next((given.partition("=")[2] for given in overrides if given.lstrip("+").partition("=")[0] == key), "")
    if files is None or not value:
        return ""
    try:
        found = _compose(project.find(Path.cwd()).overrides(files), must_be_whole=False)
    except ConfigError:
        return ""
    steps = found.unresolved.get("steps")
    return missing_key.remedy(key, value, steps if isinstance(steps, Mapping) else {}, found.choices)


def declaring(overrides: Sequence[str]) -> list[str] | None:
    """Of a command line, what says which files declare the pipeline, as overrides; None if that can't be said so."""
    files = [override for override in overrides if override.lstrip("+").partition("=")[0] in DECLARING]
    directories = [override.partition("=")[2] for override in overrides if override.startswith("--config-dir=")]
    searched = any("hydra.searchpath" in override for override in files)
    if (directories and searched) or any(one.startswith(("--config-path", "--config-name")) for one in overrides):
        return None
    return [*files, *(f"hydra.searchpath=[{project.quoted(f'file://{one}')}]" for one in directories)]


def _composition_problem(error: Exception, overrides: Sequence[str]) -> Problem:
    """Turn an error of Hydra into a problem in our terms."""
    from hydra.errors import OverrideParseException

    message = str(error)
    if found := re.search(r"Could not override '([^']+)'", message):
        key = found[1]
        if "@pipeline." in key:
            return NO_PACKAGE_LINE
        meant = _meant(key, overrides)
        if (CONFIG_DIRECTORY / key).is_dir():
            remedy = meant or f"A step takes one as {key}@steps.STEP=OPTION or {key}@steps.STEP.FIELD=OPTION."
            return Problem(key, "a folder of configurations", "the place in the pipeline for its values", remedy)
        names = [*validation.field_names(Settings), "steps", "pipeline"]
        remedy = meant or nearest(key.split(".", 1)[0], names)
        return Problem(key, "no such key", "a key of the configuration", remedy)
    if found := re.search(
        r"[Cc]ould not find '([^']+?)/([^'/]+)'.*?Available options in '[^']+':(.*?)(\n\w|$)", message, re.S
    ):
        return no_file_problem(f"{found[1]}/{found[2]}", found[3].split(), overrides)
    if found := re.search(r"In '[^']+': Could not find '([^']+)'", message):
        return Problem("defaults", f"no config {found[1]!r}", "a file below conf/")
    if found := re.search(r"Could not override '([^']+)'\.?\s*No match in the defaults list", message, re.S):
        return Problem(found[1], "no such group", "a config group")
    if isinstance(error, OverrideParseException):
        return grammar_problem(error.override, is_ambiguous=False)
    bad = next((given for given in overrides if given in message), None)
    if bad is None:
        causes = [error, *([error.__cause__] if error.__cause__ else [])]
        return Problem("config", " ".join(resolution.first_line(cause) for cause in causes if str(cause)), "")
    if "Ambiguous value" in message:
        return grammar_problem(bad, is_ambiguous=True)
    return Problem(bad.removeprefix(FORCED), resolution.first_line(error.__cause__ or error), "")


def _group_problem(overrides: Sequence[str]) -> Problem | None:
    """The choice of a file, of which Hydra says only that its name is a number, null or a truth value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for override in overrides:
        group, _, value = override.partition("=")
        try:
            chosen = OverridesParser.create().parse_override(override).value()
        except HydraException:  # it is not in the grammar: another problem
            continue
        if (CONFIG_DIRECTORY / group.partition("@")[0]).is_dir() and not isinstance(chosen, str | list):
            quoted = shlex.quote(f"{group}={project.quoted(value)}")
            return Problem(group, value, "the name of a file", f"As a name, in a shell: {quoted}.")
    return None
