"""A stage says that it starts no other processes exactly if its module calls nothing that does."""

from __future__ import annotations

import ast
from pathlib import Path
from sys import modules

import pytest

from stages.base import Stage
from stages.registry import STAGES

STARTS = {"ctx.gang", "ctx.map", "ctx.serve", "train_on_gang"}


def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("name", sorted(STAGES.names()))
def test_spawns_says_what_the_module_does(name: str) -> None:
    stage: type[Stage] = STAGES.load(name)
    assert stage.spawns == bool(calls(Path(str(modules[stage.__module__].__file__))) & STARTS)
