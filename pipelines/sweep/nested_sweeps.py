"""Sweeps within a mapping on the command line, which Hydra parses but cannot put into a configuration.

    'sweep.actions={steps.pretrain.learning_rate: tag(log,interval(1e-4,1e-2)), steps.pretrain.seed: choice(1,2)}'

They reach the configuration as texts, which the sweeper active_exploration reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipelines import project

KEYS = ("sweep.contexts", "sweep.actions", "hydra.sweeper.contexts", "hydra.sweeper.actions")
CALL = re.compile(r"[a-z]+\(.*\)", re.S)  # choice(...), tag(log, interval(...))


def as_texts(overrides: Sequence[str]) -> list[str]:
    """The overrides, with every sweep in the mappings of `KEYS` as a quoted text."""
    return [_quoted(one) if one.lstrip("+").partition("=")[0] in KEYS else one for one in overrides]


def _quoted(override: str) -> str:
    key, _, value = override.partition("=")
    inner = value.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        return override
    entries = []
    for entry in _split(inner[1:-1]):
        name, colon, sweep = entry.partition(":")
        text = sweep.strip()
        entries.append(
            f"{name.strip()}: {project.quoted(text)}" if CALL.fullmatch(text) else f"{name}{colon}{sweep}".strip()
        )
    return f"{key}={{{', '.join(entries)}}}"


def _split(text: str) -> Iterator[str]:
    """The parts between commas that are outside of brackets and quotation marks."""
    depth, quote, start = 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote and text[place - 1] != "\\" else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    if text[start:].strip():
        yield text[start:]
