"""POST /v1/align in process: both directions, ten thousand entities, unknown ones, and requests that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from stages.entity_alignment.align import AlignEntities
from stages.entity_alignment.alignment import FACTORY, EntityAlignment
from stages.entity_alignment.http import create
from tests.stages.entity_alignment.graph_files import dbp15k
from tests.stages.entity_alignment.test_make_pair import make
from tests.support import run_stage


@pytest.fixture(scope="module")
def alignment(tmp_path_factory: pytest.TempPathFactory) -> EntityAlignment:
    folder = tmp_path_factory.mktemp("served")
    pair, _ = make(folder / "pair", folder=dbp15k(folder / "zh"), train_share=0.5)
    stage = AlignEntities.model_validate({"graphs": "pair", "fusion": "names"})
    found, _ = run_stage(stage, {"pair": pair}, folder / "align", draw=False)
    assert isinstance(found, EntityAlignment)
    return found


@pytest.fixture(scope="module")
def client(alignment: EntityAlignment) -> TestClient:
    application = alignment.application()
    assert application.factory == FACTORY
    return TestClient(create(application.arguments))


def align(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/align", json=body)


def test_aligns_in_both_directions(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    body = align(client, entities=["3", "1", "3"], k=2).json()
    assert body["from"] == "left"
    assert [one["entity"] for one in body["alignments"]] == ["3", "1", "3"]
    first = body["alignments"][0]
    assert [set(one) for one in first["candidates"]] == [{"entity", "label", "score"}] * 2
    assert first["candidates"][0]["score"] >= first["candidates"][1]["score"]
    assert first["weights"] == {"relation": 0.0, "graph": 0.0, "character": 1.0}
    back = align(client, entities=["9"], **{"from": "right"}).json()["alignments"][0]
    assert len(back["candidates"]) == 6, "k is 10, and there are six"
    assert back["candidates"][0]["label"].startswith("Thing")


def test_ten_thousand_entities(client: TestClient) -> None:
    answer = align(client, entities=[str(i % 6) for i in range(10_000)], k=1)
    assert answer.status_code == 200
    assert len(answer.json()["alignments"]) == 10_000
    assert align(client, entities=["0"] * 10_001).status_code == 400


def test_unknown_entities_are_refused_together(client: TestClient) -> None:
    answer = align(client, entities=["0", "9", "10"])
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["message"] == "2 of the entities are not in the left graph"
    assert set(error["unknown"]) == {"9", "10"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"entities": []}, "entities: "),
        ({"entities": [""]}, "entities.0: "),
        ({"entities": [1]}, "entities.0: "),
        ({"entities": ["0"], "k": 0}, "k: "),
        ({"entities": ["0"], "k": "3"}, "k: "),
        ({"entities": ["0"], "from": "up"}, "from: "),
        ({"entities": ["0"], "other": 1}, "other: "),
        ([1], "the body: "),
    ],
    ids=str,
)
def test_refusals_name_the_field(client: TestClient, body: Any, message: str) -> None:
    answer = client.post("/v1/align", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_bodies_are_bounded_and_typed(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    assert client.post("/v1/align", content=b" " * ((16 << 20) + 1), headers=headers).status_code == 413
    assert client.post("/v1/align", content=b"{}").status_code == 415
    assert client.get("/v1/align").status_code == 405


def test_the_examples_that_a_deployment_sends(alignment: EntityAlignment, client: TestClient) -> None:
    for example in alignment.examples():
        assert client.request(example.method, example.path, json=example.body).status_code == example.status


def test_a_damaged_artifact_is_refused(alignment: EntityAlignment, tmp_path: Path) -> None:
    from shutil import copytree

    from stages.base import ArtifactError

    copy = EntityAlignment(copytree(alignment.path, tmp_path / "copy"))
    (copy.path / "entities.json").write_text('{"left": []}')
    with pytest.raises(ArtifactError, match="expected 6 names in 'left'"):
        copy.check()
