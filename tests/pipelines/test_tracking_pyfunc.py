"""A model in MLflow is loaded from its store by pyfunc and answers tables; what can't be loaded is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pipelines.errors import BloomlineError
from pipelines.graph import build
from pipelines.plan import make
from pipelines.store import Store
from pipelines.tracking.mlflow_model import write_model
from stages.base import Servable
from stages.predictor import Predict, Predictor, Row
from tests.pipelines.demo import six_steps
from tests.pipelines.support import put

pytestmark = pytest.mark.usefixtures("demo_stages")


@dataclass(frozen=True)
class Greeter(Servable):
    """Greets with the word in text.txt."""

    predictor: ClassVar[Predictor | None] = Predictor(
        f"{__name__}:create", {"name": "string"}, {"greeting": "string"}, {"times": 1}, {"name": "Ada"}
    )


@dataclass(frozen=True)
class Silent(Servable):
    """Answers no tables."""


def create(greeter: Greeter) -> Predict:
    word = (greeter.path / "text.txt").read_text()

    def predict(rows: Sequence[Row], parameters: Mapping[str, Any]) -> Sequence[Row]:
        return [{"greeting": f"{word} " * parameters["times"] + row["name"]} for row in rows]

    return predict


def saved(directory: Path, store: Store, kind: type[Servable], fingerprint: str) -> str:
    """A model in a directory, as MLflow has it."""
    directory.mkdir()
    model = SimpleNamespace(artifact_location=str(directory), model_id="m-1", source_run_id="r-1")
    where = {"step": "corpus", "class": f"{__name__}:{kind.__name__}", "root": store.uri_of_root}
    predictor = asdict(kind.predictor) if kind.predictor else None
    write_model(directory, model, where | {"fingerprint": fingerprint}, predictor)
    return str(directory)


@pytest.fixture
def fingerprint(store: Store) -> str:
    """That of an artifact in the store."""
    plan = make(build("demo", six_steps()), store, "abcdef")
    return put(store, plan, next(iter(plan.steps)), "run", "hello").fingerprint


def test_a_model_answers_a_table_with_its_defaults_and_with_parameters(
    store: Store, tmp_path: Path, fingerprint: str
) -> None:
    import mlflow
    import pandas

    model = mlflow.pyfunc.load_model(saved(tmp_path / "model", store, Greeter, fingerprint))
    table = pandas.DataFrame({"name": ["Ada", "Alan"]})
    assert list(model.predict(table)["greeting"]) == ["hello Ada", "hello Alan"]
    assert list(model.predict(table, params={"times": 2})["greeting"]) == ["hello hello Ada", "hello hello Alan"]
    assert list(model.predict(model.input_example)["greeting"]) == ["hello Ada"]
    with pytest.raises(mlflow.MlflowException, match="missing inputs \\['name'\\]"):
        model.predict(pandas.DataFrame({"nome": ["Ada"]}))


def test_a_store_that_was_moved_is_named_by_the_environment(
    store: Store, tmp_path: Path, fingerprint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    model = saved(tmp_path / "model", store, Greeter, fingerprint)
    os.rename(store.config.local_root, tmp_path / "moved")
    with pytest.raises(BloomlineError, match=r"has no artifact .* of step corpus. Set .* BLOOMLINE_ROOT to the store"):
        mlflow.pyfunc.load_model(model)
    monkeypatch.setenv("BLOOMLINE_ROOT", str(tmp_path / "moved"))
    mlflow.pyfunc.load_model(model)


def test_a_model_that_answers_no_tables_is_refused_in_one_sentence(
    store: Store, tmp_path: Path, fingerprint: str
) -> None:
    import mlflow

    with pytest.raises(BloomlineError, match="is a Silent, which does not answer tables"):
        mlflow.pyfunc.load_model(saved(tmp_path / "model", store, Silent, fingerprint))
