"""Refuses configurations that name code for Hydra to run.

Hydra instantiates whatever `_target_` names: callbacks, launchers, sweepers and their parts. Python's logging does the
same for `class` and `()`. A configuration may have been written by somebody else, so only the plugins and classes that
are named here are accepted, before Hydra instantiates anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError, Problem
from pipelines.terminal import short_path

TARGET = "_target_"
KNOWN_TARGETS = {  # key -> what it may name
    "hydra.launcher._target_": (
        r"hydra\._internal\.core_plugins\.basic_launcher\.BasicLauncher"
        r"|hydra_plugins\.bloomline_launcher\.launcher\.BloomlineLauncher"
        r"|hydra_plugins\.hydra_joblib_launcher\.joblib_launcher\.JoblibLauncher"
    ),
    "hydra.sweeper._target_": (
        r"hydra\._internal\.core_plugins\.basic_sweeper\.BasicSweeper"
        r"|hydra_plugins\.hydra_optuna_sweeper\.optuna_sweeper\.OptunaSweeper"
        r"|hydra_plugins\.hydra_ax_sweeper\.ax_sweeper\.AxSweeper"
        r"|hydra_plugins\.hydra_nevergrad_sweeper\.nevergrad_sweeper\.NevergradSweeper"
        r"|hydra_plugins\.active_exploration(\.\w+)+"
    ),
    "hydra.sweeper.sampler._target_": r"optuna\.samplers\.\w+Sampler",
}
KNOWN_CLASSES = {  # of logging
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.Formatter",
    "colorlog.ColoredFormatter",
}
MADE_BY_HYDRA = tuple(f"hydra.{name}" for name in ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging"))
CLASS_KEYS = ("class", "()", "listener", "queue")
KNOWN_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
CODE_KEYS = ("hydra.sweeper.custom_search_space",)  # whose values name a function
KNOWN_RESOLVERS = {"hydra", "now", "oc.env"}  # which make no mapping in which a class could be named
RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")
KNOWN_PACKAGES = re.compile(r"hydra\.conf|hydra_plugins(\.\w+)+")


def check_composed(composed: Any, files: Iterable[str]) -> None:
    """Raise ConfigError if a configuration that Hydra composed names code. `files`: those that it was made from."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(composed, resolve=False)
    problems = [_problem(key, found, files) for key, found in _code(values, "", composed)]
    hydra = values.get("hydra") or {}
    for name in (hydra.get("job") or {}).get("env_set") or {}:
        key = f"hydra.job.env_set.{name}"
        problems.append(Problem(key, "a variable of the environment", "none", "Set it in the shell."))
    if problems:
        raise ConfigError(problems)


def check_package(provider: str, path: str) -> None:
    """Raise ConfigError if a search path names a package that is not Hydra's own: to search it is to import it."""
    if not KNOWN_PACKAGES.fullmatch(path.replace("/", ".").rstrip(".")):
        key = "hydra.searchpath" if "searchpath" in provider else provider
        expected = "a directory (file://DIR)"
        raise ConfigError([Problem(key, f"the package pkg://{path}, whose code would run", expected)])


def _code(value: Any, key: str, composed: Any) -> Iterator[tuple[str, str]]:
    """Every key that names code, with what it names."""
    in_hydra = key.startswith("hydra.") or key == "hydra"
    if isinstance(value, Mapping):
        for name, inner in value.items():
            below = f"{key}.{name}" if key else str(name)
            if name == TARGET:
                if not re.fullmatch(KNOWN_TARGETS.get(below, ""), str(inner)):
                    yield below, str(inner)
            elif (in_hydra and name in CLASS_KEYS and inner not in KNOWN_CLASSES) or (below in CODE_KEYS and inner):
                yield below, str(inner)
            else:
                yield from _code(inner, below, composed)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _code(inner, f"{key}[{place}]", composed)
    elif key.startswith(MADE_BY_HYDRA) and isinstance(value, str):
        imports = value.startswith("ext://") and value not in KNOWN_STREAMS
        if imports or not {*RESOLVER.findall(value)} <= KNOWN_RESOLVERS:
            yield key, value
        elif value.startswith("${"):
            yield from _referenced(value, key, composed)


def _referenced(value: str, key: str, composed: Any) -> Iterator[tuple[str, str]]:
    """The code that a mapping or list names which stands elsewhere in the configuration."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.select(composed, key)
    except OmegaConfBaseException:  # such as hydra.runtime.output_dir, which is not known yet
        return
    if OmegaConf.is_config(found):
        yield from _code(OmegaConf.to_container(found, resolve=False), key, composed)


def _problem(key: str, found: str, files: Iterable[str]) -> Problem:
    expected = "a plugin or class that is known" if key.startswith("hydra.") else "plain values"
    return Problem(f"{_place(key, found, files)}{key}", f"{found!r}, code that would run", expected)


def _place(key: str, found: str, files: Iterable[str]) -> str:
    """The file and line in which a key has a value; "" if that is not a file."""
    name = re.escape(key.rpartition(".")[2].partition("[")[0])
    pattern = re.compile(rf"(^|[\s{{,'\"]){name}['\"]?\s*:\s*['\"]?{re.escape(found)}")
    for file in files:
        try:
            lines = Path(file).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for number, line in enumerate(lines, 1):
            if pattern.search(line):
                return f"{short_path(file)}:{number}: "
    return ""
