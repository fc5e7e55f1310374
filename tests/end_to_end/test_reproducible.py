"""The artifacts of every stage are the same wherever and whenever they are made, file by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.store import Store, StoreConfig
from tests.end_to_end.conftest import CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.mark.parametrize("pipeline", ["debug", "word_alignment_debug"])
def test_two_runs_in_two_places_make_the_same_files(tmp_path: Path, pipeline: str) -> None:
    found = []
    for place in (tmp_path / "one", tmp_path / "two" / "a longer name"):
        place.mkdir(parents=True)
        command_line = CommandLine(place)
        code, out = command_line("run", f"pipeline={pipeline}", "cluster=inline")
        assert code == 0, out
        records = list(Store(StoreConfig(root=str(command_line.store))).records())
        found.append({(record.step, file.path): file.sha256 for record in records for file in record.files})
        named = [
            path
            for path in (command_line.store / "artifacts").rglob("*")
            if path.is_file() and str(tmp_path).encode() in path.read_bytes()
        ]
        assert named == []
    assert len({step for step, _ in found[0]}) == len(records)
    assert found[0] == found[1]
