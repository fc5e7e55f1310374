"""The bounded queue of operations in flight."""

from __future__ import annotations

from stages.training.in_flight import InFlightOperations


def test_the_oldest_operations_complete_when_there_is_no_room_for_the_next() -> None:
    """Small operations share the limit; one that is larger than the limit runs alone."""
    completed: list[str] = []
    in_flight = InFlightOperations()

    def start(name: str, size_bytes: int, limit_bytes: int = 800) -> None:
        in_flight.make_room(size_bytes, limit_bytes)
        in_flight.add(size_bytes, lambda: completed.append(name))

    for name, size_bytes in (("a", 400), ("b", 360), ("c", 40)):
        start(name, size_bytes)
    assert completed == []
    start("d", 200)
    assert completed == ["a"]
    start("e", 240, limit_bytes=200)
    assert completed == ["a", "b", "c", "d"]
    in_flight.complete_all()
    assert completed == ["a", "b", "c", "d", "e"]
