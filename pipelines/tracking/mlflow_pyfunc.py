"""What MLflow's pyfunc loads: an artifact of a store that answers the rows of a table.

MLflow has only the address of the artifact. Its files are opened in the store, where every digest is checked.
"""

from __future__ import annotations

import json
import os
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pipelines.errors import BloomlineError
from pipelines.store import Store, StoreConfig
from stages.base import Servable, StageError
from stages.predictor import Predict, Predictor

ROOT_VARIABLE = "BLOOMLINE_ROOT"  # where the store is, if not where it was when the model was made
KEY_VARIABLE = "BLOOMLINE_SIGNING_KEY"


class TableModel:
    """A loaded model, as MLflow calls it."""

    def __init__(self, predict: Predict, predictor: Predictor) -> None:
        self._predict = predict
        self._predictor = predictor

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """model_input: a DataFrame with the predictor's input columns. Returns one with its output columns.

        Raises MlflowException, with which MLflow's server answers a request, for what the artifact refuses.
        """
        import pandas
        from mlflow.exceptions import MlflowException

        parameters = {**self._predictor.parameters, **(params or {})}
        try:
            answers = self._predict(model_input.to_dict("records"), parameters)
        except StageError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pandas.DataFrame(list(answers), columns=list(self._predictor.outputs))


def _load_pyfunc(path: str) -> TableModel:
    """What pyfunc calls. `path`: a file that says which artifact of which store it is. Raises BloomlineError."""
    about = json.loads(Path(path).read_text(encoding="utf-8"))
    kind = _named(about["class"])
    if not (issubclass(kind, Servable) and kind.predictor):
        raise BloomlineError(
            f"The model of step {about['step']} is a {kind.__name__}, which does not answer tables: it declares no "
            "`predictor`. Serve it over HTTP: bloomline serve"
        )
    root = os.environ.get(ROOT_VARIABLE) or about["root"]
    key = os.environ.get(KEY_VARIABLE)
    store = Store(StoreConfig(root=root, signing_key=SecretStr(key) if key else None))
    record = store.record(about["fingerprint"])
    if record is None:
        raise BloomlineError(
            f"The store {root} has no artifact {about['fingerprint'][:12]}, of step {about['step']}"
            f". Set the environment variable {ROOT_VARIABLE} to the store that has it, or run the pipeline again. "
            f"{store.unreadable(about['fingerprint'])}".rstrip()
        )
    create: Callable[[Servable], Predict] = _named(kind.predictor.factory)
    return TableModel(create(kind(store.open(record))), kind.predictor)


def _named(name: str) -> Any:
    """What "module:name" stands for."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BloomlineError(
            f"{name!r} can't be imported ({error}). Install bloomline and the package that has it in this environment."
        ) from error
