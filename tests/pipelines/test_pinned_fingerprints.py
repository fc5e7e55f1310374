"""Fingerprints of the shipped pipelines, pinned: code may move and be renamed, but what was made must be found again.

A change here means that every user's artifacts of that step are computed again. It needs a reason: a stage whose result
changed has a new `version`. The content of external files differs from machine to machine, so its digest is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import config
from pipelines.fingerprint import fingerprint, payload
from stages.base import External

PATHS = "steps.corpus.sources.{}.reader.paths=[text/*.jsonl]"
OVERRIDES = {
    "quickstart": [],
    "debug": [],
    "bloom": [PATHS.format(name) for name in ("catalogue", "pseudo_crawl", "oscar", "code")],
    "import": ["steps.model.source.path=model"],
}
PINNED = {  # the first 16 digits
    "quickstart": {
        "corpus": "7bbe78e0b65ac76f",
        "tokenizer": "32b1932e1613623f",
        "tokens": "bd74b7acbe202a64",
        "pretrain": "d663dfe0f7063ff1",
        "moe": "0dd0d7953f8f0f3f",
        "quantize": "61a0df288ae040b0",
        "evaluate": "6a4147847085dfcc",
        "deploy": "e58de4ba2b1d363e",
    },
    "debug": {
        "corpus": "9b619fad35fc1b8d",
        "tokenizer": "57be282838586b19",
        "tokens": "8a302047e61aa765",
        "pretrain": "6b7e7a7635bfae79",
        "moe": "5c60ead69d3b7456",
        "export": "03fadfccd40a368d",
        "quantize": "61b084422c83648c",
        "evaluate": "ad352f5c932e4b3c",
        "deploy": "ec5a72f7f9750a5f",
    },
    "bloom": {
        "corpus": "448b7ff9c65aa5d6",
        "tokenizer": "781d8c4f60f3a5dc",
        "tokens": "e60db016d01fcf81",
        "pretrain": "a086053207564379",
        "evaluate": "95c56f87f5d90122",
        "export": "6d0a0effdfd87305",
    },
    "import": {
        "corpus": "7bbe78e0b65ac76f",
        "model": "921b718e5c2511bb",
        "tokenizer": "1d3dddb43c0d9124",
        "tokens": "6a99ba1d75f83c7b",
        "quantize": "64e597f41f78ed8e",
        "evaluate": "b24c8d0f4290a248",
        "deploy": "a8a4c505032ec36d",
    },
}


def _subclasses(kind: type[External]) -> Iterator[type[External]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


@pytest.mark.parametrize("pipeline", OVERRIDES)
def test_fingerprints_are_those_of_earlier_versions(
    pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir("/")  # relative paths are completed by it
    graph = config.compose([f"pipeline={pipeline}", *OVERRIDES[pipeline]]).graph
    for kind in _subclasses(External):
        if "digest" in vars(kind):
            monkeypatch.setattr(kind, "digest", lambda self, digest_file: self.model_dump_json(exclude_defaults=True))
    found: dict[str, str] = {}
    for name, step in graph.steps.items():
        found[name] = fingerprint(payload(step, found, lambda path: ""))
    assert {name: value[:16] for name, value in found.items()} == PINNED[pipeline]
