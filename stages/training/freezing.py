"""Which parameters of a decoder are not trained, by patterns of their names. Free of torch: `plan` checks them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from stages.base import StageError
from stages.model.config import DecoderConfig
from stages.model.parameters import parameter_shapes


def frozen_parameters(config: DecoderConfig, patterns: Sequence[str]) -> frozenset[str]:
    """The parameters that a pattern matches: its name, with wildcards as in file names, or that of a module that
    contains it ("blocks.0", "blocks.*.mlp").

    Raises StageError if a pattern matches none, or if all parameters match.
    """
    names = list(parameter_shapes(config))
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not matched:
            tied = " (the head is word_embeddings.weight: the two are tied)" if config.tied_head else ""
            outside = [name for name in names if not name.startswith("blocks.")]
            inside = [name for name in names if name.startswith("blocks.0.")]
            raise StageError(
                f"freeze: {pattern!r} matches no parameter; expected a name, a module or a pattern with *. The "
                f"parameters are {', '.join(outside)}{tied}, and for each block from 0 to {config.layers - 1} "
                f"{', '.join(inside)}"
            )
        found |= matched
    if len(found) == len(names):
        raise StageError("freeze: every parameter matches, so there is nothing to train: leave at least one out")
    return frozenset(found)
