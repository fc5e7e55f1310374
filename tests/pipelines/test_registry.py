"""Stages and configs of a user's own package: how they are found, refused and identified."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest

from cluster.import_path import copy_modules
from pipelines import project
from pipelines.errors import ConfigError
from pipelines.fingerprint import changes, fingerprint, payload
from pipelines.graph import build
from pipelines.store.digests import sha256_of
from stages import registry
from stages.base import Artifact, Config, Context, Stage, StageError
from stages.packages import content_digest
from stages.registry import ChosenBy, Registry, RegistryError, use_packages

PYPROJECT = """\
[tool.bloomline]
packages = ["my_words"]

[project.entry-points."bloomline.stages"]
shout = "my_words.stages:Shout"
pretrain = "my_words.stages:Shout"
"""
STAGES = '''\
from dataclasses import dataclass
from stages.base import Artifact, Config, Context, Stage


@dataclass(frozen=True)
class Words(Artifact):
    """Words."""


class Loudness(Config):
    """How loud."""

    marks: int = 1


class Shout(Stage):
    """Shouts."""

    text: str = "hello"
    loudness: Loudness = Loudness()

    def run(self, ctx: Context) -> Words:
        (ctx.out / "words.txt").write_text(self.text.upper() + "!" * self.loudness.marks)
        return Words(ctx.out)


class Bare(Stage):
    """Has no annotation."""

    def run(self, ctx):
        return None
'''


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a package of one stage; whatever is imported from it is forgotten afterwards."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "my_words").mkdir()
    (tmp_path / "my_words" / "__init__.py").write_text("")
    (tmp_path / "my_words" / "stages.py").write_text(STAGES)
    monkeypatch.setattr(registry, "_user_packages", registry._UserPackages())
    monkeypatch.setattr(registry, "_first_digests", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("my_words", "my_more")]:
        del sys.modules[name]


def refusal(stage: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build("own", {"a": {"stage": stage}})
    return str(caught.value)


@pytest.mark.parametrize("name", ["shout", "my_words.stages:Shout"])
def test_a_stage_of_the_project_is_found_by_its_short_name_and_by_its_path(directory: Path, name: str) -> None:
    project.find(directory).use()
    step = build("own", {"a": {"stage": name, "text": "hi"}}).steps["a"]
    assert type(step.stage).__module__ == "my_words.stages"
    assert step.produces.__name__ == "Words"


def test_the_project_is_found_from_a_folder_below_and_not_from_outside_its_repository(directory: Path) -> None:
    below = directory / "data" / "raw"
    below.mkdir(parents=True)
    assert project.find(below).directory == directory
    (below.parent / ".git").mkdir()
    assert project.find(below) == project.Project(below)


def test_a_package_may_be_in_src_and_comes_after_everything_else(directory: Path) -> None:
    (directory / "src").mkdir()
    (directory / "my_words").rename(directory / "src" / "my_words")
    project.find(directory).use()
    assert sys.path[-1] == str(directory / "src")
    assert registry.STAGES.load("shout").__name__ == "Shout"


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("shuot", ["'shuot'", "expected the name of a stage", "Did you mean 'shout'?"]),
        ("pretrain", ["'pretrain' is a name of bloomline itself", "my_words"]),
        ("my_words.stages:Shuot", ["has no 'Shuot'", "stages.py", "Did you mean 'Shout'?"]),
        ("my_words.stages:Words", ["is not the class of a stage", "a subclass of stages.base.Stage"]),
        ("my_words.stages:Bare", ["Bare.run has no annotation of what it returns", "a subclass of Artifact"]),
        ("my_words.nothing:Shout", ["can't be imported: ModuleNotFoundError: No module named 'my_words.nothing'"]),
        ("my_verbs.stages:Shout", ["No module named 'my_verbs'", "Add my_verbs to `packages`"]),
        ("stages.training.pretrain:Pretrain", ["is built in; expected its name, 'pretrain'"]),
    ],
)
def test_a_name_that_stands_for_no_stage_is_refused(directory: Path, stage: str, said: list[str]) -> None:
    project.find(directory).use()
    message = refusal(stage)
    assert message.startswith("steps.a.stage: ")
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; sys.modules['torch'] = None; import torch", "Install it with: pip install 'bloomline[model]'"),
        ("import my_missing.part", "No module named 'my_missing'; expected a module that can be imported. Install the"),
        ("raise SystemExit(0)", "can't be imported: SystemExit: 0"),
        ("def __getattr__(name): raise RuntimeError('lazy')", "can't be imported: RuntimeError: lazy"),
        ("from stages.base import Stage\nclass Shout(Stage): pass", ".Shout has no method `run`; expected one that"),
        (
            "from stages.base import Stage\nclass Shout(Stage):\n def run(self, ctx) -> None: pass",
            ".Shout.run is annotated to return None; expected a subclass of Artifact.",
        ),
        (
            "from stages.base import Stage\nclass Shout(Stage):\n least = 1",
            "annotating it as a `ClassVar` or updating `model_config['ignored_types']`; expected a module",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused_with_what_to_do(
    directory: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch"))
    (directory / "my_words" / "stages.py").write_text(text)
    project.find(directory).use()
    assert said in refusal("shout")


def test_an_error_in_the_package_is_shown(directory: Path) -> None:
    (directory / "my_words" / "stages.py").write_text("raise ValueError('no dictionary')")
    project.find(directory).use()
    assert "'my_words.stages:Shout' can't be imported: ValueError: no dictionary" in refusal("shout")


def test_two_packages_must_not_claim_one_name(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.find(directory).use()
    same = EntryPoint("shout", "my_words.stages:Shout", "bloomline.stages")
    monkeypatch.setattr(registry, "_installed", lambda group: (same,))
    assert registry.STAGES.load("shout").__name__ == "Shout"  # the project itself, installed
    other = EntryPoint("shout", "loud_words:Shout", "bloomline.stages")
    monkeypatch.setattr(registry, "_installed", lambda group: (other,))
    message = refusal("shout")
    assert "'shout' is claimed by my_words (my_words.stages:Shout) and by loud_words (loud_words:Shout)" in message


def test_a_copy_of_a_package_is_as_good_until_it_differs(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = directory / "copied" / "my_words"
    shutil.copytree(directory / "my_words", copy)
    monkeypatch.syspath_prepend(str(copy.parent))
    project.find(directory).use()
    assert registry.package_path("my_words") == copy
    (directory / "my_words" / "stages.py").rename(directory / "ignored_by_git.py")  # and so not in a job's directory
    project.find(directory).use()
    (directory / "my_words" / "stages.py").write_text(STAGES + "# newer")
    with pytest.raises(ConfigError, match=r"packages: .*my_words is hidden by"):
        project.find(directory).use()


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("stages", "'stages' is a package of bloomline itself"),
        ("json", "my_words/json is hidden by"),
        ("my_nothing", "'my_nothing' is not found"),
        ("no_init", "'no_init' has no __init__.py"),
    ],
)
def test_a_package_that_cannot_be_used_is_refused(directory: Path, package: str, said: str) -> None:
    inner = directory / "my_words"
    for name in ("json", "no_init"):
        (inner / name).mkdir()
    (inner / "json" / "__init__.py").write_text("")
    with pytest.raises(RegistryError) as caught:
        use_packages(inner, (package,))
    assert said in str(caught.value)


class Chosen(Config):
    """Base of the configs that are chosen by a name."""


class Own(Chosen):
    """A built-in choice."""

    version: ClassVar[str] = "3"
    kind: Literal["own"] = "own"
    size: int = 1


CHOSEN = Registry("bloomline.chosen", "a thing", Chosen, {"own": f"{__name__}:Own"})


@pytest.fixture
def chosen(directory: Path) -> None:
    with (directory / "pyproject.toml").open("a") as file:
        file.write('\n[project.entry-points."bloomline.chosen"]\ntheirs = "my_words.things:Theirs"\n')
    (directory / "my_words" / "things.py").write_text(
        "from typing import Literal\n"
        f"from {__name__} import Chosen\n"
        "class Theirs(Chosen):\n"
        "    kind: Literal['theirs'] = 'theirs'\n"
        "    depth: int = 1\n"
    )
    project.find(directory).use()


class Result(Artifact):
    """A choice for `Choose`."""


class Choose(Stage):
    """Holds configs that are chosen by a name."""

    version: ClassVar[str] = "1"
    things: tuple[Annotated[Chosen, ChosenBy(CHOSEN, "kind")], ...] = ()
    first: Annotated[Chosen, ChosenBy(CHOSEN, "kind")] = Own()

    def run(self, ctx: Context) -> Result:
        return Result(ctx.out)


@pytest.fixture
def choosing(chosen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Registry("bloomline.none", "a stage", Stage, {"choose": f"{__name__}:Choose"})
    monkeypatch.setattr(registry, "STAGES", stages)


@pytest.mark.usefixtures("choosing")
@pytest.mark.parametrize("kind", ["theirs", "my_words.things:Theirs"])
def test_a_config_is_chosen_by_name_and_identified_by_the_source_of_its_package(directory: Path, kind: str) -> None:
    step = build("own", {"a": {"stage": "choose", "things": [{"kind": "own"}, {"kind": kind, "depth": 2}]}}).steps["a"]
    digest = registry.source_digest("my_words")
    assert payload(step, {}, sha256_of)["fields"] == {
        "things": [{"kind": "own", "version": "3"}, {"kind": "theirs", "depth": 2, "@source": {"my_words": digest}}]
    }


@pytest.mark.usefixtures("choosing")
@pytest.mark.parametrize(
    ("things", "said"),
    [
        ([{"kind": "thiers"}], "steps.a.things.0.kind: 'thiers'; expected the name of a thing. Did you mean 'theirs'?"),
        ([{"size": 2}], "steps.a.things.0.kind: missing; expected the name of a thing."),
        (
            [{"kind": "own"}, {"kind": "theirs", "dept": 2}],
            "steps.a.things.1.dept: unknown field 'dept'; expected a field that exists. Did you mean 'depth'?",
        ),
        ([{"kind": "theirs", "depth": "deep"}], "steps.a.things.0.depth: 'deep'; expected "),
    ],
)
def test_a_config_that_is_chosen_by_name_is_refused_with_its_key(things: list[object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("own", {"a": {"stage": "choose", "things": things}})
    assert said in str(caught.value)


@pytest.mark.usefixtures("choosing")
def test_a_single_config_is_chosen_by_name_too() -> None:
    with pytest.raises(ConfigError, match=r"steps\.a\.first\.dept: unknown field 'dept'.*'depth'"):
        build("own", {"a": {"stage": "choose", "first": {"kind": "theirs", "dept": 2}}})


@pytest.mark.usefixtures("choosing")
def test_the_packages_of_a_graph_are_those_of_its_configs_and_of_the_project(directory: Path) -> None:
    def packages() -> list[Path]:
        return build("own", {"a": {"stage": "choose", "things": [{"kind": "my_words.things:Theirs"}]}}).packages()

    tests = Path(__file__).parents[1]  # where the stage is
    assert packages() == [directory / "my_words", tests]
    (directory / "my_more.py").write_text("")
    use_packages(directory, ["my_more"])
    assert packages() == [directory / "my_more.py", directory / "my_words", tests]


def identity(steps: dict[str, object] | None = None) -> dict[str, object]:
    """The payload of the stage as a new process would compute it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "my_words"]:
        del sys.modules[name]
    registry._first_digests.clear()
    step = build("own", {"a": {"stage": "shout", **(steps or {})}}).steps["a"]
    return payload(step, {}, sha256_of)


def test_the_source_of_a_package_is_part_of_the_identity(directory: Path) -> None:
    project.find(directory).use()
    step = build("own", {"a": {"stage": "shout"}}).steps["a"]
    before = identity()
    (directory / "my_words" / "__pycache__").mkdir(exist_ok=True)
    (directory / "my_words" / "__pycache__" / "x.pyc").write_text("compiled")
    assert identity() == before
    (directory / "my_words" / "table.txt").write_text("data that the package reads")
    after = identity()
    assert fingerprint(after) != fingerprint(before)
    assert changes(before, after, step) == ["the source of my_words changed"]
    assert changes(before, identity({"text": "x"}), step) == ["the source of my_words changed", "text 'hello' -> 'x'"]


def test_a_copy_on_another_machine_has_the_same_digest(directory: Path) -> None:
    package = directory / "my_words"
    (package / ".gitignore").write_text("*.bin")
    (package / "table.bin").write_bytes(b"ignored by git")
    (package / os.fsdecode(b"not-utf-8-\xff")).touch()
    (directory / "shared" / "deep").mkdir(parents=True)
    (directory / "shared" / "deep" / "words.txt").write_text("linked")
    (package / "linked").symlink_to(directory / "shared")
    (package / "broken").symlink_to("/nowhere")
    (package / "circle").symlink_to(package)
    digest = content_digest(package)
    (copy,) = (one for one in copy_modules([package], directory / "copies") if one.name == package.name)
    assert content_digest(copy) == digest
    assert (copy / "table.bin").is_file()
    assert not (copy / ".gitignore").exists()
    (directory / "shared" / "deep" / "words.txt").write_text("edited")
    assert content_digest(package) != digest


def test_a_declared_version_takes_the_place_of_the_source_for_the_whole_package(directory: Path) -> None:
    project.find(directory).use()
    before = identity()
    source = directory / "my_words" / "stages.py"
    source.write_text(STAGES.replace('    text: str = "hello"', '    version = "1"\n    text: str = "hello"'))
    declared = identity({"loudness": {"marks": 3}})
    assert "@source" not in str(declared)
    step = build("own", {"a": {"stage": "shout"}}).steps["a"]
    assert changes(before, identity(), step) == ["my_words is no longer identified by its source"]
    source.write_text(source.read_text() + "\n# a comment\n")
    assert identity({"loudness": {"marks": 3}}) == declared


def test_source_that_is_edited_after_its_import_is_refused(directory: Path) -> None:
    project.find(directory).use()
    step = build("own", {"a": {"stage": "shout"}}).steps["a"]
    (directory / "my_words" / "stages.py").write_text(STAGES + "\n# edited\n")
    with pytest.raises(StageError, match="The source of my_words changed after this command had imported it"):
        payload(step, {}, sha256_of)
