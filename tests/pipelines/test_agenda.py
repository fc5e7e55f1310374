"""The agenda: what is considered when, compared with looking at every step each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.agenda import Agenda

CHAIN = {"a": (), "b": ("a",), "c": ("b",), "d": ("a", "c")}


def test_everything_is_considered_at_the_beginning_in_order() -> None:
    assert list(Agenda(CHAIN).round(room=True)) == ["a", "b", "c", "d"]


def test_what_finishes_in_a_round_brings_its_followers_into_the_same_round() -> None:
    agenda = Agenda(CHAIN)
    list(agenda.round(room=True))
    agenda.finished("a")
    considered = []
    for name in agenda.round(room=False):
        considered.append(name)
        if name == "b":
            agenda.finished("b")
    assert considered == ["b", "c", "d"]


def test_what_waits_comes_again_and_what_waits_for_room_only_when_there_may_be_some() -> None:
    agenda = Agenda(CHAIN)
    list(agenda.round(room=True))
    agenda.again("b")
    agenda.when_there_is_room("a")
    assert agenda.waits_for_room
    assert list(agenda.round(room=False)) == ["b"]
    assert list(agenda.round(room=True)) == ["a"]
    assert not agenda.waits_for_room
    assert list(agenda.round(room=True)) == []


@given(st.data())
def test_every_step_of_any_graph_is_considered_after_its_inputs(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    inputs = {
        str(place): tuple(map(str, data.draw(st.sets(st.integers(0, place - 1))) if place else ()))
        for place in range(count)
    }
    agenda, finished = Agenda(inputs), set[str]()
    for _ in range(count + 1):
        for name in agenda.round(room=data.draw(st.booleans())):
            if name not in finished and finished.issuperset(inputs[name]):
                if data.draw(st.booleans()):
                    agenda.when_there_is_room(name)
                else:
                    finished.add(name)
                    agenda.finished(name)
    while len(finished) < count:
        before = len(finished)
        for name in agenda.round(room=True):
            if name not in finished and finished.issuperset(inputs[name]):
                finished.add(name)
                agenda.finished(name)
        assert len(finished) > before
