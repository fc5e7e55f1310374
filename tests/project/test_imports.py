"""The import contracts in pyproject.toml: each one holds for the tree, and breaks when a violation is planted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.support import ROOT

PACKAGES = ("pipelines", "cluster", "stages", "hydra_plugins")

# (contract, file to plant, its text)
PLANTS = [
    ("layers", "stages/model/planted.py", "import pipelines.plan"),
    ("layers", "stages/corpus/planted.py", "from cluster import base"),
    ("layers", "cluster/planted.py", "def late():\n    from pipelines import plan\n    return plan"),
    ("stages-by-name", "pipelines/planted.py", "from stages.training.pretrain import Pretrain"),
    ("stages-by-name", "cluster/planted.py", "def late():\n    import stages.serving.http"),
    ("registry", "cluster/planted.py", "from stages.registry import load"),
    ("ray", "stages/training/planted.py", "import ray"),
    ("ray", "stages/training/planted.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray"),
    ("layers", "stages/training/planted.py", "def late():\n    from cluster import base\n    return base"),
    ("subjects", "stages/model/planted.py", "from .. import training"),
    ("ray", "pipelines/planted.py", "def late():\n    from ray.exceptions import RayError\n    return RayError"),
    ("mlflow", "pipelines/tracking/planted.py", "from mlflow.tracking import MlflowClient"),
    ("hydra", "stages/planted.py", "from omegaconf import OmegaConf"),
    ("hydra", "cluster/planted.py", "import hydra"),
    ("subjects", "stages/model/planted.py", "import stages.artifacts.tokens"),
    ("subjects", "stages/parallel/planted.py", "import stages.training.loop"),
    ("subjects", "stages/evaluation/planted.py", "import stages.serving.http"),
    ("subjects", "stages/quantization/planted.py", "import stages.experts.moe"),
    ("subjects", "stages/pde/planted.py", "import stages.model.config"),
    ("subjects", "stages/weather/planted.py", "import stages.base"),  # a subject without a place in the plan
    ("model-agnostic", "stages/training/planted.py", "import stages.word_alignment"),
    ("model-agnostic", "stages/serving/planted.py", "import stages.entity_alignment.model"),
    ("training", "stages/serving/planted.py", "import stages.training.loop"),
    ("inference", "stages/experts/planted.py", "import stages.inference.engine"),
    ("huggingface", "stages/huggingface/planted.py", "import stages.parallel"),
    ("plugins", "hydra_plugins/active_exploration/planted.py", "from stages.base import Config"),
    ("plugins", "hydra_plugins/active_exploration/planted.py", "import pipelines.plan"),
    ("stages-by-name", "pipelines/planted.py", "import stages.exploration.space"),
    ("circles", "stages/base.py", "def late():\n    import stages.registry"),
    ("circles", "cluster/base.py", "def late():\n    import cluster.ray_executor"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages and of their contracts."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60)


def test_every_contract_holds_for_the_tree(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("contract", "name", "text"), PLANTS, ids=[f"{one[0]}-{one[1]}" for one in PLANTS])
def test_a_planted_violation_breaks_its_contract(tree: Path, contract: str, name: str, text: str) -> None:
    for subject in ("pde", "weather", "word_alignment"):
        if subject in name or subject in text:
            (tree / "stages" / subject).mkdir(exist_ok=True)
            (tree / "stages" / subject / "__init__.py").touch()
    with (tree / name).open("a") as file:
        file.write(f"\n{text}\n")
    result = lint(tree, "--contract", contract)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\n\nimportlib.import_module('ray')",
        "from importlib import import_module as load\n\nload('ray')",
    ],
)
def test_an_import_that_the_contracts_do_not_see_is_refused(text: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "stages/model/planted.py", "-"]
    result = subprocess.run(command, cwd=ROOT, input=text + "\n", capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "TID251" in result.stdout
