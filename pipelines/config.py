"""From Hydra to typed values. A DictConfig becomes `Settings` and a `Graph`, or one ConfigError.

Composition is Hydra's (defaults list, groups, overrides, `hydra.searchpath`); validation is ours. Overrides of fields
are made add-or-override, so that every field of a stage can be set whether or not a YAML mentions it; a name
that no stage has is then refused by the stage's own type, with the nearest valid one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from cluster.config import ClusterConfig
from pipelines import composition_cache, project, validation
from pipelines.errors import ConfigError, Problem, nearest
from pipelines.graph import Graph, build, check_names
from pipelines.libyaml import libyaml
from pipelines.project import Packages
from pipelines.store import StoreConfig
from pipelines.tracking.tracking_config import TrackingConfig
from stages.base import Config

CONFIG_DIRECTORY = Path(__file__).resolve().parents[1] / "conf"  # by its place: a user may have a package `conf`
CONFIG_NAME = "config"
TYPED = ("steps.", "cluster.", "store.", "tracking.")  # what our own types check better than Hydra's struct flag
# Hydra puts the keys of a pipeline's file below `pipeline` without this line.
NO_PACKAGE_LINE = Problem(
    "pipeline", "the file of the chosen pipeline has no line `# @package _global_`", "it as the first line"
)
FORCED = "++"  # Hydra: add or override
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
    store: StoreConfig
    tracking: TrackingConfig
    packages: Packages = ()  # of the user's project
    from_: StepNames = Field((), alias="from")
    until: StepNames = ()
    only: StepNames = ()
    force: StepNames = ()


@dataclass(frozen=True)
class Composition:
    """A configuration as composed and checked."""

    settings: Settings
    graph: Graph
    values: Mapping[str, Any]  # plain and resolved, for YAML

    def yaml(self) -> str:
        """The whole configuration as YAML, resolved, as it would be written in one file."""
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create(dict(self.values)))


def compose(overrides: Sequence[str]) -> Composition:
    """Compose the configuration from Hydra overrides and check it. Raises ConfigError."""
    overrides = project.find(Path.cwd()).overrides(overrides)
    values = composition_cache.load(overrides)
    if values is None:
        values, directories = _compose(overrides)
        composition = check_values(values)
        composition_cache.save(overrides, directories, values)
        return composition
    return check_values(values)


def compose_values(overrides: Sequence[str]) -> Mapping[str, Any]:
    """Compose the configuration from Hydra overrides without checking it. Raises ConfigError if Hydra can't."""
    overrides = project.find(Path.cwd()).overrides(overrides)
    values, _ = _compose(overrides, must_be_whole=False)
    return values


def pipelines_available() -> list[str]:
    """The names of the shipped pipelines."""
    return sorted(path.stem for path in (CONFIG_DIRECTORY / "pipeline").glob("*.yaml"))


def check(composed: Any) -> Composition:
    """Turn a DictConfig that Hydra composed into checked values. Raises ConfigError with every problem."""
    return check_values(_plain(composed))


def _compose(overrides: Sequence[str], must_be_whole: bool = True) -> tuple[dict[str, Any], list[Path] | None]:
    """The plain values, and the directories in which Hydra searched for them (None: not only in directories).

    `must_be_whole`: a mandatory value (???) that nobody gave is an error.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    GlobalHydra.instance().clear()
    try:
        with libyaml(), initialize_config_dir(str(CONFIG_DIRECTORY), version_base=VERSION_BASE):
            composed = hydra_compose(CONFIG_NAME, overrides=prepare(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([_composition_problem(error, overrides)]) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("config", " ".join(str(error).split()), "files in YAML and UTF-8")]) from error
    sources = [(source.schema, source.path) for source in composed.hydra.runtime.config_sources]
    return _plain(composed, must_be_whole), _directories(sources)


def _plain(composed: Any, must_be_whole: bool = True) -> dict[str, Any]:
    """A DictConfig, without Hydra's own part, as plain resolved values. Raises ConfigError if a value is not known."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    with open_dict(composed):
        composed.pop("hydra", None)
    try:
        found: Any = OmegaConf.to_container(composed, resolve=must_be_whole, throw_on_missing=must_be_whole)
    except OmegaConfBaseException as error:
        message = str(error).split("\n", 1)[0]
        raise ConfigError([Problem(error.full_key or "config", message, "a value")]) from error
    if must_be_whole and isinstance(found.get("pipeline"), dict):
        raise ConfigError([NO_PACKAGE_LINE])
    return dict(found)


def _directories(sources: Iterable[tuple[str, str]]) -> list[Path] | None:
    found = []
    for schema, path in sources:
        if schema == "file":
            found.append(Path(path).absolute())
        elif path and (schema, path) != ("pkg", "hydra.conf") and schema != "structured":
            return None
    return found


def check_values(values: Mapping[str, Any]) -> Composition:
    """Check plain values: the settings, the steps and the edges. Raises ConfigError with every problem."""
    problems: list[Problem] = []
    settings: Settings | None = None
    others = {key: value for key, value in values.items() if key != "steps"}
    try:
        settings = Settings.model_validate(others)
    except ValidationError as error:
        problems += validation.problems("", Settings, error, others)
    name = str(values.get("name"))
    graph: Graph | None = None
    try:
        project.find(Path.cwd()).use(settings.packages if settings else ())
        graph = build(name, values.get("steps") or {})
    except ConfigError as error:
        problems += error.problems
    if problems or settings is None or graph is None:
        raise ConfigError(problems)
    for key in ("from_", "until", "only", "force"):
        check_names(graph, key.rstrip("_"), getattr(settings, key))
    return Composition(settings, graph, values)


def prepare(overrides: Iterable[str]) -> list[str]:
    """Overrides for Hydra, in which those of fields add the field or override it."""
    return [f"{FORCED}{override}" if override.startswith(TYPED) else override for override in overrides]


def _composition_problem(error: Exception, overrides: Sequence[str]) -> Problem:
    """Turn an error of Hydra into a problem in our terms."""
    message = str(error)
    if found := re.search(r"Could not override '([^']+)'", message):
        key = found[1]
        if "@pipeline." in key:
            return NO_PACKAGE_LINE
        top = key.split(".", 1)[0]
        return Problem(
            key,
            "no such key",
            "a key of the configuration",
            nearest(top, [*validation.field_names(Settings), "steps", "pipeline"]),
        )
    if found := re.search(
        r"[Cc]ould not find '([^']+?)/([^'/]+)'.*?Available options in '[^']+':(.*?)(\n\w|$)", message, re.S
    ):
        group, option, options = found[1], found[2], found[3].split()
        return Problem(group, repr(option), f"a file of conf/{group}/", nearest(option, options))
    if found := re.search(r"In '[^']+': Could not find '([^']+)'", message):
        return Problem("defaults", f"no config {found[1]!r}", "a file below conf/")
    if found := re.search(r"Could not override '([^']+)'\.?\s*No match in the defaults list", message, re.S):
        return Problem(found[1], "no such group", "a config group")
    if "LexerNoViableAltException" in message:
        key, _, value = message.rpartition("Exception: ")[2].splitlines()[0].removeprefix(FORCED).partition("=")
        return Problem(
            key,
            f"{value!r} has a character that Hydra does not accept",
            "the value in quotes",
            f"In a shell: {shlex.quote(f'{key}={chr(34)}{value}{chr(34)}')}.",
        )
    bad = str(getattr(error, "override", None) or next((given for given in overrides if given in message), "overrides"))
    first = next((line for line in message.splitlines() if line.strip()), type(error).__name__)
    return Problem(
        bad.removeprefix(FORCED),
        first.strip().rstrip("."),
        "a Hydra override such as steps.pretrain.learning_rate=1e-3",
    )
