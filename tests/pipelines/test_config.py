"""Composition and its errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines import config
from pipelines.config import Composition
from pipelines.errors import ConfigError
from tests.pipelines.demo import Make

pytestmark = pytest.mark.usefixtures("demo_stages")

PIPELINE = """\
# @package _global_
name: small
steps:
  a: {stage: make, text: "${oc.env:DEMO_TEXT,hello}"}
  b: {stage: count, text: a}
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A user's own configuration directory with a pipeline in it."""
    path = tmp_path / "conf" / "pipeline" / "small.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(PIPELINE)
    return tmp_path / "conf"


def compose(conf: Path, *overrides: str) -> Composition:
    return config.compose([f"hydra.searchpath=[file://{conf}]", "pipeline=small", *overrides])


def make_of(composition: Composition) -> Make:
    """The stage of step `a`."""
    stage = composition.graph.steps["a"].stage
    assert isinstance(stage, Make)
    return stage


def refusal(conf: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(conf, *overrides)
    return str(caught.value)


def test_composes_checks_and_types(conf: Path) -> None:
    composition = compose(conf, "steps.a.times=3", "from=b", "cluster=inline", "force=[a,b]")
    assert make_of(composition).times == 3
    assert composition.settings.from_ == ("b",)
    assert composition.settings.force == ("a", "b")
    assert composition.settings.cluster.kind == "inline"
    assert "times: 3" in composition.yaml()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps.a.tims=3", ["steps.a.tims", "unknown field", "Did you mean 'times'?"]),
        ("steps.a.times=none", ["steps.a.times", "'none'", "expected an integer."]),
        ("steps.b.text=c", ["steps.b.text", "no step 'c'"]),
        ("steps.c.stage=make2", ["steps.c.stage", "'make2'", "Did you mean 'make'?"]),
        ("form=b", ["form", "Did you mean 'from'?"]),
        ("pretrain=debug", ["pretrain: a folder of configurations", "pretrain@steps.STEP=OPTION"]),
        ("from=bb", ["from", "'bb'", "the name of a step"]),
        ("cluster=loca", ["cluster", "'loca'", "Did you mean 'local'?"]),
        ("pipeline=smal", ["pipeline", "'smal'", "Did you mean 'small'?"]),
        ("cluster.kid=3", ["cluster.kid", "unknown field 'kid'", "Did you mean 'kind'?"]),
        ("store.rot=x", ["store.rot", "unknown field 'rot'", "Did you mean 'root'?"]),
        ("store.lease_timeout_s=0", ["store.lease_timeout_s", "0", "greater than 0"]),
        (
            "store=s3",
            ["store.root: not set; expected the address of a bucket. Set it with store.root=s3://BUCKET/PREFIX."],
        ),
        ("name=a/b", ["name", "'a/b'"]),
        ("steps.a={", ["steps.a", "not a value in Hydra's grammar", "'steps.a=\"{\"'"]),
        ("pipeline=2024", ["pipeline: 2024; expected the name of a file", "'pipeline=\"2024\"'"]),
        ("pipeline=null", ["pipeline: null; expected the name of a file"]),
        ("steps.a.text=[x=1/*, b]", ["As a list of texts", """'steps.a.text=["x=1/*","b"]'"""]),
        ("steps.a.text=b,c", ["'b,c' is several values", "'steps.a.text=\"b,c\"'", "'steps.a.text=[b,c]'"]),
        ("steps.a.text=1", ["steps.a.text: 1; expected a string", "'steps.a.text=\"1\"' in a shell"]),
        ("steps.a.text=true", ["'steps.a.text=\"true\"' in a shell"]),
        ("steps=[a]", ["steps=[a]", "Cannot merge"]),
        ("+more=1", ["more", "unknown field"]),
        ("steps.a.text=${nothing}", ["nothing"]),
    ],
)
def test_refuses_with_key_value_and_remedy(conf: Path, override: str, said: Sequence[str]) -> None:
    message = refusal(conf, override)
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    "text", [PIPELINE, PIPELINE.replace("name:", "defaults: [override /cluster: inline]\nname:", 1)]
)
def test_a_pipeline_without_its_first_line_is_refused(conf: Path, text: str) -> None:
    (conf / "pipeline" / "small.yaml").write_text(text.removeprefix("# @package _global_\n"))
    said = "pipeline: the file of the chosen pipeline has no line `# @package _global_`; expected it as the first line."
    assert refusal(conf) == said


def test_refuses_in_under_a_second_without_heavy_imports(conf: Path) -> None:
    """In a new process, as a user starts it. Times are not measured: ray, torch and mlflow must not be imported."""
    code = (
        "import sys; from pipelines import cli\n"
        "code = cli.run(['run', 'steps.nothing.stage=pretrane'])\n"
        "heavy = {'ray', 'torch', 'mlflow', 'transformers', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "steps.nothing.stage: 'pretrane'" in done.stderr
    assert "Did you mean 'pretrain'?" in done.stderr


def test_a_key_that_is_like_none_is_not_taken_for_another() -> None:
    with pytest.raises(ConfigError, match="unknown field 'foo'") as refused:
        config.compose(["+foo=1"])
    assert "Did you mean" not in str(refused.value)
    with pytest.raises(ConfigError, match="Did you mean 'from'"):
        config.compose(["+form=moe"])
