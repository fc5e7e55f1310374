"""POST /v1/translate in process: both directions, unknown words, and requests that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from stages.word_alignment.alignment import FACTORY
from stages.word_alignment.http import create
from tests.stages.word_alignment.spaces import artifact, planted
from tests.stages.word_alignment.test_align import aligning
from tests.support import run_stage


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[TestClient, np.ndarray]:
    folder = tmp_path_factory.mktemp("served")
    source, target, _, places = planted(120, 8)
    sides = {"a": artifact(folder / "a", source, "aa", "house"), "b": artifact(folder / "b", target, "bb", "casa")}
    pairs = folder / "pairs.txt"
    pairs.write_text("".join(f"house{place} casa{places[place]}\n" for place in range(60)))
    stage = aligning(method="procrustes", dictionary=str(pairs), refinement_rounds=0)
    alignment, _ = run_stage(stage, sides, folder / "step", draw=False)
    application = alignment.application()
    assert application.factory == FACTORY
    return TestClient(create(application.arguments)), places


def translate(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/translate", json=body)


def test_translates_in_both_directions(served: tuple[TestClient, np.ndarray]) -> None:
    client, places = served
    assert client.get("/health").json() == {"status": "ok"}
    answer = translate(client, words=["house1", "house2", "house1"], **{"from": "aa"}, k=3)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["from"], body["to"]) == ("aa", "bb")
    assert [one["word"] for one in body["translations"]] == ["house1", "house2", "house1"]
    first = body["translations"][0]["translations"]
    assert len(first) == 3
    assert first[0]["word"] == f"casa{places[1]}"
    assert [one["score"] for one in first] == sorted((one["score"] for one in first), reverse=True)
    back = translate(client, words=[f"casa{places[1]}"], **{"from": "bb"}).json()
    assert back["translations"][0]["translations"][0]["word"] == "house1"
    assert len(back["translations"][0]["translations"]) == 5


def test_unknown_words_are_refused_with_the_nearest_known_ones(served: tuple[TestClient, np.ndarray]) -> None:
    answer = translate(served[0], words=["house1", "hause7", "qqqqqq"], **{"from": "aa"})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["message"] == "2 of the words are not in the vocabulary of aa"
    assert "house7" in error["unknown"]["hause7"]
    assert error["unknown"]["qqqqqq"] == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"words": ["house1"], "from": "cc"}, 400, "expected 'aa' or 'bb'"),
        ({"words": [], "from": "aa"}, 400, "words: "),
        ({"words": ["house1"]}, 400, "from: Field required"),
        ({"words": ["house1"], "from": "aa", "k": 0}, 400, "k: "),
        ({"words": ["house1"], "from": "aa", "k": "3"}, 400, "k: "),
        ({"words": ["house1"], "from": "aa", "other": 1}, 400, "other: "),
        ({"words": ["x"] * 300, "from": "aa"}, 400, "words: "),
        ({"words": ["x" * 300], "from": "aa"}, 400, "words.0: "),
        ([1], 400, "the body: "),
    ],
    ids=str,
)
def test_refusals_name_the_field(served: tuple[TestClient, np.ndarray], body: Any, status: int, message: str) -> None:
    answer = served[0].post("/v1/translate", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_bodies_are_bounded_and_typed(served: tuple[TestClient, np.ndarray]) -> None:
    client = served[0]
    headers = {"content-type": "application/json"}
    assert client.post("/v1/translate", content=b" " * 300_000, headers=headers).status_code == 413
    assert client.post("/v1/translate", content=b"{}").status_code == 415
    assert client.post("/v1/translate", content=b"\xff{", headers=headers).status_code == 400
    assert client.get("/v1/translate").status_code == 405
    assert client.get("/nothing").json()["error"]["message"].startswith("GET /nothing")
