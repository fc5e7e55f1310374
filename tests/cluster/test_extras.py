"""A missing module is refused with the command that installs its extra."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from typing import Any

import pytest

from cluster.extras import CONTRIBUTORS, missing_extra, modules_by_extra
from cluster.outcome_capture import capture_outcome


@pytest.mark.parametrize(
    ("module", "extras"),
    [
        ("mlflow", ["tracking"]),
        ("torch", ["model"]),  # not `serving`, `all` or `dev`, which include `model`
        ("fastapi.responses", ["serving"]),
        ("numpy", ["corpus", "exploration", "model"]),
        ("warcio", ["corpus"]),
        ("s3fs", ["s3"]),
    ],
)
def test_the_smallest_extras_are_named(module: str, extras: list[str]) -> None:
    refusal = missing_extra(ModuleNotFoundError(f"No module named {module!r}", name=module))
    commands = " or ".join(f"pip install 'bloomline[{extra}]'" for extra in extras)
    assert refusal == f"The Python module {module.partition('.')[0]!r} is not installed. Install it with: {commands}"


@pytest.mark.parametrize("extra", sorted(modules_by_extra().keys() - CONTRIBUTORS - {"", "all"}))
def test_every_extra_is_named_by_a_module_that_it_brings(extra: str) -> None:
    refusals = [missing_extra(ModuleNotFoundError(name=module)) or "" for module in modules_by_extra()[extra]]
    assert any(f"Install it with: pip install 'bloomline[{extra}]'" in refusal for refusal in refusals)


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError(name="a_module_of_the_user"),
        ModuleNotFoundError(name="pydantic"),  # part of a plain installation
        ModuleNotFoundError(name="httpx"),  # for contributors only
        ModuleNotFoundError("raised without a name"),
        ImportError("cannot import name", name="torch"),
        ValueError("torch"),
    ],
)
def test_other_errors_are_not_changed(error: BaseException) -> None:
    assert missing_extra(error) is None


def test_the_module_of_every_distribution_of_an_extra_is_known() -> None:
    importable = set(packages_distributions())
    for extra, modules in modules_by_extra().items():
        if extra and extra not in CONTRIBUTORS:
            assert modules <= importable, extra


def test_a_step_that_misses_a_module_fails_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: Any) -> None:
        import mlflow  # noqa: F401  blocked below

    monkeypatch.setitem(sys.modules, "mlflow", None)
    outcome = capture_outcome("train", work)
    assert outcome.state == "failed"
    assert outcome.error.endswith("pip install 'bloomline[tracking]'")
    assert not outcome.trace
