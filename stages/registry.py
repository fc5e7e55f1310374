"""Which class a name in a configuration stands for: stages, and with the same class operations, readers and rules.

Names come from three places:

- bloomline's own table (`STAGES` below);
- installed packages, which declare entry points in a group such as `bloomline.stages`;
- the packages of the user's project, which `packages: [my_package]` in the configuration or `[tool.bloomline]` in the
  project's `pyproject.toml` names. Their short names stand in the same file as `[project.entry-points."GROUP"]`: the
  table that an installed package has, so that nothing changes on the day the project is installed.

A configuration may also say `package.module:Class`, which needs no declaration. A name has one meaning: one that two
packages claim, or that a package shares with a built-in class, is refused. Modules are imported only when a
configuration names something in them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, PydanticUserError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from stages.base import Stage, StageError
from stages.packages import OWN_PACKAGES, content_digest, package_files

TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # package.module:Class
SOURCE_KEY = "@source"  # no field can have this name
PACKAGES_VARIABLE = "BLOOMLINE_PACKAGES"

Model = TypeVar("Model", bound=BaseModel)


class RegistryError(StageError):
    """A name that stands for no usable class: what was found, what was expected, and what to do instead."""

    def __init__(
        self,
        found: str,
        expected: str,
        remedy: str = "",
        name: str = "",
        valid: Sequence[str] = (),
        missing: str = "",
    ) -> None:
        super().__init__(f"{found}; expected {expected}.{f' {remedy}' if remedy else ''}")
        self.found = found
        self.expected = expected
        self.remedy = remedy
        self.name = name  # that is not known,
        self.valid = tuple(valid)  # and those that could have been meant
        self.missing = missing  # a top-level module that is not installed


# ---------------------------------------------------------------------------------------------------------------
# The user's packages


@dataclass(frozen=True)
class _UserPackages:
    names: tuple[str, ...] = ()
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # group -> name -> package.module:Class


_user_packages = _UserPackages()


def use_packages(
    directory: Path, packages: Sequence[str], entry_points: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Make the packages of a project importable, after everything else, and their names known to every registry.

    `directory` is that of the project; its packages are there or in `src/`. `entry_points` are those that the project
    declares. Raises RegistryError for a package that cannot be found, or that another module of the same name hides.
    """
    global _user_packages
    for name in packages:
        if name in OWN_PACKAGES:
            raise RegistryError(f"{name!r} is a package of bloomline itself", "a package of yours", "Rename it.")
        if name == "__main__":
            raise RegistryError(f"{name!r} is the program itself", "a package of yours")
        roots = [root for root in (directory, directory / "src") if _is_in(root, name)]
        for root in roots:
            if str(root) not in sys.path:
                sys.path.append(str(root))
        spec = importlib.util.find_spec(name)
        where = f"a package of that name in {directory} or on PYTHONPATH"
        if spec is None:
            raise RegistryError(f"{name!r} is not found", where)
        if spec.origin is None:
            raise RegistryError(f"{name!r} has no __init__.py", where, "Add an empty one.")
        if roots and not _same_code(package_path(name), roots[0]):
            raise RegistryError(f"{roots[0] / name} is hidden by {spec.origin}", where, "Rename the package.")
    _user_packages = _UserPackages(tuple(packages), entry_points or {})


def user_packages() -> tuple[str, ...]:
    """The packages of the project in use."""
    return _user_packages.names


def is_declared(package: str) -> bool:
    """Whether a top-level package may be imported because data names it: its owner has declared it to bloomline.

    That is done by an entry point of the installed package in one of bloomline's groups, by the project in use, or by
    the environment variable BLOOMLINE_PACKAGES (names separated by commas), for a server outside of a project.
    """
    named = [name.strip() for name in os.environ.get(PACKAGES_VARIABLE, "").split(",")]
    return package in (*OWN_PACKAGES, *_user_packages.names, *named) or package in _declared_by_installed()


@cache
def _declared_by_installed() -> frozenset[str]:
    groups = (group for group in entry_points().groups if group.startswith("bloomline."))
    return frozenset(entry.module.partition(".")[0] for group in groups for entry in _installed(group))


def _same_code(package: Path, root: Path) -> bool:
    """Whether what is imported is the package in the project, or a copy of it.

    A submitted job imports a copy. The project's own directory may then lack what git ignores, but not differ.
    """
    own = root / package.name
    if own == package or not own.exists():
        return own == package
    copied = {name: file.read_bytes() for name, file in _modules(package)}
    return all(copied.get(name) == file.read_bytes() for name, file in _modules(own))


def _modules(package: Path) -> Iterator[tuple[str, Path]]:
    """The Python files of a package with their relative names."""
    return ((str(file.relative_to(package)), file) for file in package_files(package) if file.suffix == ".py")


def _is_in(directory: Path, package: str) -> bool:
    return (directory / package).is_dir() or (directory / f"{package}.py").is_file()


# ---------------------------------------------------------------------------------------------------------------
# Registries


@dataclass(frozen=True)
class Offer:
    """A class that a package offers under a name."""

    target: str  # package.module:Class
    by: str  # the distribution or package that offers it


class Registry(Generic[Model]):
    """The classes of one kind by name.

    `group`: the entry points in which packages declare such classes. `kind`: the word for one of them in messages, with
    its article. `base`: the class that each must derive from. `builtins`: bloomline's own, by name, as
    `package.module:Class`.
    """

    def __init__(self, group: str, kind: str, base: type[Model], builtins: Mapping[str, str]) -> None:
        self.group = group
        self.kind = kind
        self.base = base
        self.builtins = builtins

    def names(self) -> list[str]:
        """Every name that a configuration may use, the built-in ones first."""
        return [*self.builtins, *sorted(set(self._offers()) - set(self.builtins))]

    def load(self, name: str) -> type[Model]:
        """The class that `name`, or `package.module:Class`, stands for. Raises RegistryError."""
        offers = self._offers().get(name, [])
        if name in self.builtins:
            if offers:
                raise RegistryError(
                    f"{name!r} is a name of bloomline itself, and {offers[0].by} claims it for {offers[0].target}",
                    "another name",
                    f"Rename it in the entry points {self.group!r} of {offers[0].by}.",
                )
            return self._import(self.builtins[name])
        if len(offers) > 1:
            claims = " and by ".join(f"{offer.by} ({offer.target})" for offer in offers)
            raise RegistryError(
                f"{name!r} is claimed by {claims}", "one claim", f"Name one of them directly: {offers[0].target}."
            )
        if offers:
            return self._import(offers[0].target)
        if TARGET.fullmatch(name):
            own = next((short for short, target in self.builtins.items() if target == name), None)
            if own is not None:
                raise RegistryError(f"{name!r} is built in", f"its name, {own!r}")
            return self._import(name)
        raise RegistryError(repr(name), f"the name of {self.kind}", name=name, valid=self.names())

    def _offers(self) -> dict[str, list[Offer]]:
        """What packages offer, by name. One class that is offered twice, as by a project that is installed, is one."""
        found: dict[str, list[Offer]] = {}
        for name, offer in [*self._of_project(), *self._of_installed()]:
            known = found.setdefault(name, [])
            if all(offer.target != other.target for other in known):
                known.append(offer)
        return found

    def _of_project(self) -> Iterator[tuple[str, Offer]]:
        for name, target in _user_packages.entry_points.get(self.group, {}).items():
            package = str(target).partition(":")[0].partition(".")[0]
            if package in _user_packages.names:
                yield name, Offer(str(target), package)

    def _of_installed(self) -> Iterator[tuple[str, Offer]]:
        for entry in _installed(self.group):
            yield entry.name, Offer(entry.value, entry.dist.name if entry.dist else entry.module)

    def _import(self, target: str) -> type[Model]:
        path, _, attribute = target.partition(":")
        package = path.partition(".")[0]
        if not TARGET.fullmatch(target):
            raise RegistryError(f"{target!r} is not the path of a class", "package.module:Class")
        try:
            if (
                target not in self.builtins.values()
                and package not in _first_digests
                and importlib.util.find_spec(package)
            ):
                source_digest(package)  # of the code that is imported now
            module = importlib.import_module(path)
            kind = getattr(module, attribute, None)
        except (Exception, SystemExit) as error:
            name = (isinstance(error, ModuleNotFoundError) and error.name) or ""
            remedy = f"Add {package} to `packages` if it is in your project." if name == package else ""
            missing = name.partition(".")[0]
            raise RegistryError(
                f"{target!r} can't be imported: {type(error).__name__}: {_message(error).rstrip('.')}",
                "a module that can be imported",
                remedy,
                missing=missing if missing != package else "",
            ) from error
        if kind is None:
            others = [name for name, value in vars(module).items() if self._fits(value) and value is not self.base]
            where = getattr(module, "__file__", path)
            found = f"{path} ({where}) has no {attribute!r}"
            raise RegistryError(found, f"the class of {self.kind}", name=attribute, valid=others)
        if not self._fits(kind):
            expected = f"a subclass of {self.base.__module__}.{self.base.__name__}"
            raise RegistryError(f"{target!r} is not the class of {self.kind}", expected)
        found_kind: type[Model] = kind
        return found_kind

    def _fits(self, value: object) -> bool:
        return isinstance(value, type) and issubclass(value, self.base)


def _message(error: BaseException) -> str:
    """The message of an exception, in one line. That of pydantic would end with the address of a page."""
    return " ".join((error.message if isinstance(error, PydanticUserError) else str(error)).split())


@cache
def _installed(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


@dataclass(frozen=True)
class ChosenBy:
    """Marks a field whose value is a config of a registry, chosen by the name in the config's own field `key`.

        Step = Annotated[Operation, ChosenBy(OPERATIONS, "operation")]

    Each class of the registry declares that field as `operation: Literal["words"] = "words"`. A name that is not known
    is an error of type "registry", whose context has the `RegistryError` as `error`.
    """

    registry: Registry[Any]
    key: str

    def choose(self, value: Any) -> type[BaseModel] | None:
        """The class that a raw value names; None if it does not. Raises RegistryError."""
        name = value.get(self.key) if isinstance(value, Mapping) else None
        return self.registry.load(name) if isinstance(name, str) else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def _validate(self, value: Any) -> BaseModel:
        if isinstance(value, BaseModel) and isinstance(value, self.registry.base):
            return value
        try:
            kind = self.choose(value)
            if kind is None:
                expected = f"the name of {self.registry.kind}"
                raise RegistryError("missing", expected, valid=self.registry.names())
        except RegistryError as error:
            context = {"key": self.key, "found": error.found, "expected": error.expected, "error": error}
            raise PydanticCustomError("registry", "{key}: {found}; expected {expected}", context) from error
        own = kind.model_fields[self.key].default if self.key in kind.model_fields else value[self.key]
        chosen: BaseModel = kind.model_validate({**value, self.key: own})
        return chosen


# ---------------------------------------------------------------------------------------------------------------
# Identity of code


def package_of(kind: type) -> str | None:
    """The top-level package of a user's class; None for a class of bloomline itself."""
    package = kind.__module__.partition(".")[0]
    return None if package in OWN_PACKAGES else package


def code_identity(kind: type[BaseModel]) -> dict[str, Any]:
    """What the code of a config contributes to its identity: its `version`, and the source of a user's package.

    The source counts unless a class of the user's declares `version`: then the user says when results change.
    Raises StageError if the source was edited after this process imported it.
    """
    version = {"version": str(getattr(kind, "version", "1"))}
    package = package_of(kind)
    declared = any("version" in vars(base) for base in kind.__mro__ if package_of(base) and issubclass(base, BaseModel))
    return version if package is None or declared else {**version, SOURCE_KEY: {package: source_digest(package)}}


def package_path(package: str) -> Path:
    """The directory of a top-level package, or the file of a single module. The package need not be imported."""
    spec = None if package == "__main__" else importlib.util.find_spec(package)
    folders = list((spec and spec.submodule_search_locations) or [])
    return Path(folders[0] if folders else (spec and spec.origin) or str(sys.modules[package].__file__))


def package_paths(packages: Iterable[str]) -> list[Path]:
    """The paths of packages, each once, without those that cannot be copied to another machine under their name.

    These are the program itself (`__main__`) and namespace packages, which have no __init__.py.
    """
    paths = [package_path(package) for package in dict.fromkeys(packages) if package != "__main__"]
    return [path for path in paths if path.is_file() or (path / "__init__.py").is_file()]


_first_digests: dict[str, str] = {}


def source_digest(package: str) -> str:
    """The SHA-256 of the names and contents of a package's files. Compiled and hidden files are left out.

    Raises StageError if the files are not what they were when this process imported the package: the code that runs
    here and the code that a worker would import are then not the same.
    """
    digest = content_digest(package_path(package))
    if _first_digests.setdefault(package, digest) != digest:
        raise StageError(f"The source of {package} changed after this command had imported it. Run the command again.")
    return digest


STAGES = Registry(
    "bloomline.stages",
    "a stage",
    Stage,
    {
        "corpus": "stages.corpus.ingest:IngestCorpus",
        "remove": "stages.corpus.remove:RemoveDocuments",
        "ngram": "stages.corpus.ngram:TrainNgram",
        "quality": "stages.corpus.quality:TrainQuality",
        "tokenizer": "stages.corpus.tokenizer:TrainTokenizer",
        "model_tokenizer": "stages.huggingface.model_tokenizer:ModelTokenizer",
        "tokens": "stages.corpus.tokens:TokenizeCorpus",
        "pretrain": "stages.training.pretrain:Pretrain",
        "import": "stages.huggingface.import_model:ImportModel",
        "moe": "stages.experts.moe:ConvertToExperts",
        "quantize": "stages.quantization.quantize:Quantize",
        "evaluate": "stages.evaluation.evaluate:Evaluate",
        "export": "stages.huggingface.export_model:ExportModel",
        "deploy": "stages.serving.deploy:Deploy",
        "word_vectors": "stages.word_alignment.word_vectors:MakeWordVectors",
        "align_words": "stages.word_alignment.align:AlignWords",
        "transfer_vocabulary": "stages.word_alignment.transfer_vocabulary:TransferVocabulary",
        "evaluate_lexicon": "stages.word_alignment.evaluate:EvaluateLexicon",
        "graph_pair": "stages.entity_alignment.make_pair:MakeGraphPair",
        "align_entities": "stages.entity_alignment.align:AlignEntities",
        "evaluate_entity_alignment": "stages.entity_alignment.evaluate:EvaluateEntityAlignment",
        "explore": "stages.exploration.explore:Explore",
        "compare_explorations": "stages.exploration.compare:CompareExplorations",
        "pde_observations": "stages.pde.make_observations:MakeObservations",
        "pde_smooth": "stages.pde.smooth:Smooth",
        "pde_infer": "stages.pde.infer:Infer",
        "pde_evaluate": "stages.pde.evaluate:EvaluatePde",
    },
)
