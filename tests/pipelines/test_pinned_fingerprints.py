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
        "corpus": "c02ba856f1b1be04",
        "tokenizer": "8a6ef015f5117e84",
        "tokens": "36bdb5c5aa508647",
        "pretrain": "a15ba6e978c88f44",
        "moe": "ab3427f6c580acfa",
        "quantize": "01d92f4e18079390",
        "evaluate": "1f502616bdd5bec0",
        "deploy": "651583a02cac0c55",
    },
    "debug": {
        "corpus": "605794361de7b5fb",
        "tokenizer": "e4a735670e581afa",
        "tokens": "d2b3c3cd3b5827d2",
        "pretrain": "b0182efacae02430",
        "moe": "27b497c6ed7a1ae6",
        "export": "136d4c788e71f1af",
        "quantize": "df5b9c46f17b0f8e",
        "evaluate": "99e8ecb811c407c9",
        "deploy": "60004244e33651c2",
    },
    "bloom": {
        "corpus": "1280e6a5fd26f348",
        "tokenizer": "21a0aa1e41d8977f",
        "tokens": "d5ffdc5bc98f9fb6",
        "pretrain": "2fc2c5b7860c9e5d",
        "evaluate": "7a8cab5d4db387a6",
        "export": "4edc0cf7698566d5",
    },
    "import": {
        "corpus": "c02ba856f1b1be04",
        "model": "921b718e5c2511bb",
        "tokenizer": "1d3dddb43c0d9124",
        "tokens": "ce2271483ecd7160",
        "quantize": "0321ed58fe2a1a69",
        "evaluate": "f8f97ac00bbca979",
        "deploy": "76521413edefdb31",
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
