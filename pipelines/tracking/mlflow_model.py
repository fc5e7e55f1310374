"""The files of a model in MLflow: which artifact of which store it is, and how MLflow's pyfunc loads and calls it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOADER = "pipelines.tracking.mlflow_pyfunc"
ARTIFACT = "artifact.json"
EXAMPLE, SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"


def write_model(
    directory: Path, model: Any, artifact: Mapping[str, Any] | None, predictor: Mapping[str, Any] | None
) -> None:
    """Write MLmodel and what it names into an empty directory.

    `model`: the LoggedModel. `artifact`: what `mlflow_pyfunc` reads; None: nothing loads the model, and MLflow says
    that its files are elsewhere. `predictor`: the fields of its `Predictor`, if the artifact answers tables.
    """
    from mlflow.models import Model
    from mlflow.models.utils import get_external_mlflow_model_spec

    if artifact is None:
        get_external_mlflow_model_spec(model).save(str(directory / "MLmodel"))
        return
    (directory / ARTIFACT).write_text(json.dumps(artifact, indent=2), encoding="utf-8")
    example = _write_example(directory, predictor) if predictor else None
    described = Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        model_id=model.model_id,
        run_id=model.source_run_id,
        signature=_signature(predictor) if predictor else None,
        saved_input_example_info=example,
    )
    described.add_flavor(
        "python_function", loader_module=LOADER, data=ARTIFACT, python_version=platform.python_version()
    )
    described.save(str(directory / "MLmodel"))


def _signature(predictor: Mapping[str, Any]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    types = {bool: "boolean", int: "long", float: "double", str: "string"}
    inputs, outputs = (
        Schema([ColSpec(kind, name) for name, kind in predictor[side].items()]) for side in ("inputs", "outputs")
    )
    parameters = [ParamSpec(name, types[type(value)], value) for name, value in predictor["parameters"].items()]
    return ModelSignature(inputs, outputs, **({"params": ParamSchema(parameters)} if parameters else {}))


def _write_example(directory: Path, predictor: Mapping[str, Any]) -> dict[str, str]:
    """Write a table of one row, and the same as the body of a request to `mlflow models serve`."""
    row = predictor["example"]
    table = {"columns": list(row), "data": [list(row.values())]}
    request = {"dataframe_split": table, "params": predictor["parameters"]}
    (directory / EXAMPLE).write_text(json.dumps(table), encoding="utf-8")
    (directory / SERVING_EXAMPLE).write_text(json.dumps(request), encoding="utf-8")
    split = {"artifact_path": EXAMPLE, "type": "dataframe", "pandas_orient": "split"}
    return split | {"serving_input_path": SERVING_EXAMPLE}
