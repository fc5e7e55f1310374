"""Whether a Serve that someone else started can be used from this node, and where it answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stages.base import StageError


def options(location: str, host: str | None, **others: str) -> SimpleNamespace:
    return SimpleNamespace(
        **{"port": 8000, "root_path": "", "ssl_certfile": None, **others}, location=location, host=host
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (options("EveryNode", "127.0.0.1"), "http://127.0.0.1:8000"),
        (options("EveryNode", "0.0.0.0"), "http://127.0.0.1:8000"),
        (options("EveryNode", "10.0.0.5"), "http://10.0.0.5:8000"),
        (options("EveryNode", "fd00::5"), "http://[fd00::5]:8000"),
        (options("EveryNode", "::", root_path="/models"), "http://127.0.0.1:8000/models"),
    ],
)
def test_a_foreign_serve_is_used_where_it_answers(
    found: SimpleNamespace, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import serve_session

    monkeypatch.setattr(serve_session, "_is_head", lambda: False)
    assert serve_session._url(found) == expected


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (options("Disabled", "127.0.0.1"), "no HTTP proxy"),
        (options("EveryNode", None), "no HTTP proxy"),
        (options("HeadOnly", "127.0.0.1"), "loopback interface of the head"),
        (options("EveryNode", "0.0.0.0", ssl_certfile="/cert"), "HTTPS only"),
    ],
)
def test_a_foreign_serve_that_cannot_be_reached_is_refused_by_name(
    found: SimpleNamespace, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import serve_session

    monkeypatch.setattr(serve_session, "_is_head", lambda: False)
    with pytest.raises(StageError, match=reason) as refused:
        serve_session._url(found)
    assert "serve shutdown" in str(refused.value)


def test_an_application_of_a_driver_that_ended_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import serve_session

    found = [{"JobID": "01000000", "IsDead": True}, {"JobID": "02000000", "IsDead": False}]
    monkeypatch.setattr(serve_session, "jobs", lambda: found)
    assert serve_session._is_abandoned("words-01000000-0123abcd-4567")
    assert serve_session._is_abandoned("words-01000000-0123abcd-4567-proxy")
    assert not serve_session._is_abandoned("words-02000000-0123abcd-4567")  # its driver runs
    assert not serve_session._is_abandoned("words-03000000-0123abcd-4567")  # another cluster's
    assert not serve_session._is_abandoned("words")  # not ours
