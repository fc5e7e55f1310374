"""The check of an application's factory before a server is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster import inline_serve
from cluster.asgi import check_factory
from stages.base import Application, StageError


def test_a_factory_that_can_be_called_is_accepted() -> None:
    check_factory("tests.cluster.applications:create")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "tests.cluster.applications:creat",
            "tests.cluster.applications has no 'creat'. Did you mean 'create'?",
        ),
        ("tests.cluster.applications:xyz", "tests.cluster.applications has no 'xyz'."),
        (
            "tests.no:create",
            "The factory 'tests.no:create' can't be imported: ModuleNotFoundError: No module named 'tests.no'",
        ),
        ("stuck:create", "The factory 'stuck:create' can't be imported: ValueError: no dictionary"),
    ],
)
def test_another_is_refused_in_one_line(
    factory: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stuck.py").write_text("raise ValueError('no dictionary')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StageError, match=f"^{re.escape(message)}$"):
        inline_serve.start(Application("greeter", factory))
