"""Runs the example projects in copies of their folders, with the commands of their READMEs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.store import Record, Store, StoreConfig
from tests.project.support import ROOT


@dataclass(frozen=True)
class Project:
    """A copy of an example."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "BLOOMLINE_ROOT"}
        return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "160", **self.environment}

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bloomline", *words]
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __call__(self, *words: str, timeout_s: float = 240) -> str:
        """What a command that succeeds prints."""
        process = self.start(*words)
        try:
            out, _ = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        assert process.returncode == 0, out
        return out

    @property
    def store(self) -> Store:
        return Store(StoreConfig(root=str(self.directory / ".bloomline")))

    def records(self) -> dict[str, list[Record]]:
        """The records in the store, by step."""
        found: dict[str, list[Record]] = {}
        for record in self.store.records():
            found.setdefault(record.step, []).append(record)
        return found


def copy(name: str, folder: Path) -> Path:
    ignored = shutil.ignore_patterns(".bloomline", "__pycache__", ".pytest_cache")
    return Path(shutil.copytree(ROOT / "examples" / name, folder / name, ignore=ignored))


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """The example that the test module is named for."""
    return Project(copy(request.path.stem.removeprefix("test_"), tmp_path))
