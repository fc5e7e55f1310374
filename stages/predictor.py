"""How an artifact answers the rows of a table: what MLflow's pyfunc, and other callers without HTTP, ask it by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Predictor:
    """How an artifact answers the rows of a table, for example in MLflow's pyfunc.

    `factory` ("module:function") is called with the artifact and returns a function: it receives the rows (mappings of
    column to value) and every parameter by name, and returns one row for each.
    A type is "string", "long", "double" or "boolean". A parameter has the type of its default.
    """

    factory: str
    inputs: Mapping[str, str]  # column -> type
    outputs: Mapping[str, str]
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # name -> default
    example: Mapping[str, Any] = field(default_factory=dict)  # one row of inputs


Row = Mapping[str, Any]
Predict = Callable[[Sequence[Row], Mapping[str, Any]], Sequence[Row]]
