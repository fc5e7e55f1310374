"""Every YAML of the groups corpus, ngram, remove, tokenizer, tokens and evaluate is a valid config of its stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stages import registry
from stages.corpus.source import Source

CONF = Path(__file__).parents[3] / "conf"
EDGES = {
    "corpus": (),
    "ngram": ("corpus",),
    "quality": ("good", "other"),
    "remove": ("corpus",),
    "tokenizer": ("corpus",),
    "tokens": ("corpus", "tokenizer"),
    "evaluate": ("model", "corpus"),
}
FILES = [path for group in EDGES for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_composes_to_a_valid_stage(path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(f"{path.parent.name}/{path.stem}")[path.parent.name]
    for source in config.get("sources", {}).values():
        if OmegaConf.is_missing(source.reader, "paths"):
            source.reader.paths = ["data/*.txt"]  # the one value that a user has to give
    if path.name == "listed.yaml":
        config.listed.path = "removals.txt"
    values: dict[str, Any] = OmegaConf.to_container(config, throw_on_missing=True)  # type: ignore[assignment]
    stage = registry.STAGES.load(path.parent.name)(**values, **{name: name for name in EDGES[path.parent.name]})
    assert set(values) <= stage.model_fields_set


def test_every_group_has_a_debug_size_and_the_quickstarts() -> None:
    for group in EDGES.keys() - {"ngram", "quality", "remove"}:  # no steps of the quickstart
        assert {"debug", "quickstart"} <= {path.stem for path in FILES if path.parent.name == group}


@pytest.mark.parametrize("path", sorted((CONF / "corpus" / "source").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_source_is_one(path: Path) -> None:
    values: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[assignment]
    if values["reader"].get("paths") == "???":
        values["reader"]["paths"] = ["data/*"]
    source = Source.model_validate(values)
    assert set(values) <= source.model_fields_set
