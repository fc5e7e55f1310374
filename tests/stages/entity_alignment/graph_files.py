"""Small graphs and pairs for the tests of entity alignment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.entity_alignment.graph_pair import GraphPair
from stages.entity_alignment.make_pair import MakeGraphPair
from tests.support import run_stage


def dbp15k(folder: Path, **changed: str) -> Path:
    """A folder in the layout of DBP15K with six entities on each side; `changed` replaces the text of files."""
    files = {
        "ent_ids_1": "".join(f"{i}\thttp://zh.example.org/resource/Thing_{i}\n" for i in range(6)),
        "ent_ids_2": "".join(f"{i + 6}\thttp://example.org/resource/Thing_{i}\n" for i in range(6)),
        "triples_1": "0\t0\t1\n1\t0\t2\n3\t1\t4\n4\t1\t5\n",
        "triples_2": "6\t2\t7\n7\t2\t8\n9\t3\t10\n10\t3\t11\n",
        "ref_ent_ids": "".join(f"{i}\t{i + 6}\n" for i in range(6)),
    } | changed
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def simulated(folder: Path, entities: int = 40, **fields: Any) -> GraphPair:
    """The artifact of a simulated pair."""
    made = {"kind": "simulated", "entities": entities, **fields}
    stage = MakeGraphPair.model_validate({"made": made, "train_share": 0.5})
    artifact, _ = run_stage(stage, {}, folder, draw=False)
    assert isinstance(artifact, GraphPair)
    return artifact
