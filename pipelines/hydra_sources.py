"""What Hydra reads while it composes: checked, and noted for the cache of compositions.

Hydra finds files through its sources, one class for each scheme of a search path. Here the source of directories is
replaced by one that notes every file and directory that was asked for, and refuses a file that is not UTF-8 by name;
that of packages by one that imports none but Hydra's own. What was composed is refused if it names code.
Interpolations are noted at the table in which OmegaConf looks up their resolvers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError, Problem
from pipelines.hydra_code import check_composed, check_package
from pipelines.redaction import remember, shown_config
from pipelines.resolution import bounded, unresolved
from pipelines.terminal import short_path
from pipelines.termination import raise_again
from pipelines.yaml_loader import checked_yaml

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass
class Noted:
    """What a composition depends on."""

    paths: dict[str, str] = field(default_factory=dict)  # every file and directory that was asked for -> its state
    lists: bool = False  # whether the names in a directory were asked for
    resolvers: set[str] = field(default_factory=set)  # the names of those that were called
    choosing: set[str] = field(default_factory=set)  # of those that were called before the last path was asked for
    containers: bool = False  # whether one returned a list or a mapping, into which other values can be merged


def state(path: str) -> str:
    """What is at a path, links followed: the digest of a file, or the words directory, nothing or unreadable."""
    if not os.path.isfile(path):
        return "directory" if os.path.isdir(path) else "nothing"
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return "unreadable"


@contextmanager
def noting() -> Iterator[Noted]:
    """Within, Hydra reads through the checks above, and OmegaConf parses as `pipelines.yaml_loader` says."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins
    from omegaconf.basecontainer import BaseContainer

    Plugins.instance()  # registers the sources
    noted = Noted()
    types = SourcesRegistry.instance().types
    files, packages, resolvers = types["file"], types["pkg"], BaseContainer._resolvers
    load = ConfigLoaderImpl.load_configuration

    def load_checked(*arguments: Any, **named: Any) -> Any:
        composed = load(*arguments, **named)
        raise_again()
        check_composed(composed, noted.paths)
        written = unresolved(composed)
        remember(written, shown_config(written))
        return composed

    types["file"], types["pkg"] = _source(files, noted), _checked_packages(packages)
    BaseContainer._resolvers = _NotingTable(resolvers, noted)
    ConfigLoaderImpl.load_configuration = load_checked  # type: ignore[method-assign]
    try:
        with checked_yaml(), bounded():
            yield noted
    finally:
        types["file"], types["pkg"] = files, packages
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]
        resolvers.update(BaseContainer._resolvers)  # with those that Hydra has registered meanwhile
        BaseContainer._resolvers = resolvers


class _NotingTable(dict[str, Any]):
    """OmegaConf's table of resolvers. OmegaConf looks a resolver up each time that it calls it."""

    def __init__(self, resolvers: dict[str, Any], noted: Noted) -> None:
        super().__init__(resolvers)
        self._noted = noted

    def __getitem__(self, name: str) -> Any:
        resolver = super().__getitem__(name)

        def called(*arguments: Any) -> Any:
            self._noted.resolvers.add(name)
            found = resolver(*arguments)
            self._noted.containers |= isinstance(found, Mapping | Sequence) and not isinstance(found, str)
            return found

        return called


def _source(own: Any, noted: Noted) -> Any:
    """The class of a source that does what `own` does, and notes it."""

    class FileConfigSource(own):  # type: ignore[misc]  # Hydra compares the names of classes
        def load_config(self, config_path: str) -> Any:
            path = self._note(self._normalize_file_name(config_path))
            _check_encoding(Path(path))
            try:
                return super().load_config(config_path)
            except ValueError as error:  # of a line `# @`
                raise ConfigError([Problem(short_path(path), str(error), "a line `# @package NAME`")]) from None

        def is_config(self, config_path: str) -> bool:
            self._note(self._normalize_file_name(config_path))
            return bool(super().is_config(config_path))

        def is_group(self, config_path: str) -> bool:
            self._note(config_path)
            return bool(super().is_group(config_path))

        def list(self, config_path: str, results_filter: Any) -> Any:
            noted.lists = True
            return super().list(config_path, results_filter)

        def _note(self, name: str) -> str:
            noted.choosing |= noted.resolvers
            path = os.path.abspath(os.path.join(self.path, name))
            if path not in noted.paths:
                noted.paths[path] = state(path)
            return path

    return FileConfigSource


def _checked_packages(own: Any) -> Any:
    """The class of a source that does what `own` does, for packages that may be imported."""

    class ImportlibResourcesConfigSource(own):  # type: ignore[misc]  # Hydra compares the names of classes
        def __init__(self, provider: str, path: str) -> None:
            super().__init__(provider=provider, path=path)
            check_package(provider, self.path)

    return ImportlibResourcesConfigSource


def _check_encoding(path: Path) -> None:
    """Raises ConfigError for a file that is not UTF-8, or begins with a byte order mark: Hydra would not see the line
    `# @package` after it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    if content.startswith(BYTE_ORDER_MARK):
        expected = "UTF-8 without one"
        raise ConfigError([Problem(f"{short_path(str(path))}:1:1", "a byte order mark", expected, "Save it without.")])
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        place = f"{short_path(str(path))}:{line}:{column}"
        found = f"the byte {content[error.start]:#04x}, which is not UTF-8"
        raise ConfigError([Problem(place, found, "text in UTF-8", "Save the file as UTF-8.")]) from None
