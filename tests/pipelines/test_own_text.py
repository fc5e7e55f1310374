"""The configuration of the pipeline of own text: what `text` may be, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import config
from pipelines.errors import ConfigError
from stages.corpus.ingest import IngestCorpus
from stages.corpus.readers.documents import Documents


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_export_of_own_text_has_the_licence_and_language_of_the_text(tmp_path: Path) -> None:
    def exported(*overrides: str) -> tuple[str, list[str]]:
        values = config.compose(["pipeline=text", f"text={tmp_path}", *overrides]).values
        export = values["steps"]["export"]
        return export["license"], export["languages"]

    assert exported() == ("unknown", [])
    source = "steps.corpus.sources.text"
    assert exported(f"{source}.license=CC-BY-4.0", f"{source}.language=no") == ("CC-BY-4.0", ["no"])


def test_own_text_is_one_place_or_several(tmp_path: Path) -> None:
    def paths(text: str) -> object:
        stage = config.compose(["pipeline=text", text]).graph.steps["corpus"].stage
        assert isinstance(stage, IngestCorpus)
        reader = stage.sources["text"].reader
        assert isinstance(reader, Documents)
        return reader.paths

    assert paths(f"text={tmp_path}") == (str(tmp_path),)
    assert paths(f"text=[{tmp_path}/a,'s3://bucket/b']") == (f"{tmp_path}/a", "s3://bucket/b")
    for empty in ("text=", "text=[]", "text=null"):
        with pytest.raises(ConfigError, match="text"):
            paths(empty)
    with pytest.raises(ConfigError, match=r"text: no such key; .* takes it: pipeline=text"):
        config.compose(["text=books"])
