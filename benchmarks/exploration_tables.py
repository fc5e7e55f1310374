"""Measured landscapes of this project as problems of benchmarks/exploration.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stages.exploration.problems import Problem

TABLES: Mapping[str, Callable[[], Problem]] = {}
