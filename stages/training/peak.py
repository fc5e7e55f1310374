"""A step played through on one rank, in bytes and without torch: what is there at each moment, and the most there is.

A moment is a place of a micro-batch's backward pass, or what comes after them: the last exchange, the sum's norm, the
collection of a checkpoint. What is counted is what `stages/training/zero.py` and those that it uses keep and give back,
apart from parameters and optimizer states, which are always there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from stages.training.activations import Activations
from stages.training.layout import ALIGNMENT, Group, bucket_columns
from stages.training.tree import held_after, leaf_range


@dataclass(frozen=True)
class Setting:
    """What a step's memory follows from, beside its activations. `leaves`: its micro-batches; `in_order`: gradients are
    summed in the order that is the same for any number of ranks."""

    groups: Sequence[Group]
    ranks: int
    zero_stage: int
    element: int  # bytes of a parameter in compute
    bucket_bytes: int
    leaves: int
    in_order: bool = True

    @cached_property
    def closing(self) -> list[list[int]]:
        """For each place, the sizes of the groups whose gradient is whole when the backward pass has left it."""
        places = max(place for group in self.groups for place in group.places) + 1
        return [[one.padded(self.ranks) for one in self.groups if min(one.places) == place] for place in range(places)]

    @cached_property
    def sums(self) -> set[tuple[int, ...]]:
        """How many sums of gradients are held after each turn: of one rank after the other, those that differ."""
        if self.zero_stage < 2:
            runs = [leaf_range(rank, self.ranks, self.leaves) for rank in range(self.ranks)]
            return {tuple(held_after(run)) if self.in_order else (1,) * len(run) for run in runs}
        held = held_after(range(self.leaves))
        done = range(self.ranks, self.leaves + self.ranks, self.ranks)
        return {tuple(held[min(leaves, self.leaves) - 1] for leaves in done)}

    @cached_property
    def turns(self) -> set[tuple[int, int, bool]]:
        """The turns that differ, of any rank: sums held before and after, and whether it is the step's last."""
        return {
            (before, after, turn == len(held))
            for held in self.sums
            for turn, (before, after) in enumerate(zip((0, *held), held, strict=False), start=1)
        }

    def kept(self, elements: int, sums: int) -> int:
        """Bytes of the sums of a gradient of so many elements, between two turns."""
        return sums * 4 * elements // (self.ranks if self.zero_stage > 1 else 1)

    def reduced(self, elements: int) -> int:
        """Bytes of the gradient of the whole batch."""
        return 4 * elements // (self.ranks if self.zero_stage else 1)

    @property
    def elements(self) -> int:
        return sum(sum(sizes) for sizes in self.closing)


def most_gradients(setting: Setting) -> int:
    """Bytes of gradients at most between two turns, and when all were summed."""
    late = _late(setting) if setting.zero_stage > 1 else 0
    between = [
        setting.kept(setting.elements, after) + 4 * late * (before - after)
        for before, after, last in setting.turns
        if not (last and _exchanges_sums(setting))
    ]
    return max([setting.reduced(setting.elements), *between])


def step_peak(setting: Setting, activations: Activations) -> int:
    """Bytes of gradients, activations and all that a step works with, at its peak."""
    passes = (moment for turn in setting.turns for moment in _backward_pass(setting, activations, *turn))
    return max(*passes, _norm(setting))


def collection(setting: Setting) -> int:
    """Bytes of the group at work as rank 0 collects a checkpoint."""
    return 12 * max(max(sizes) for sizes in setting.closing if sizes)


def _backward_pass(setting: Setting, kept: Activations, before: int, after: int, last: bool) -> Iterator[int]:
    """The moments of a turn before which `before` sums of each group are held, and `after` after it."""
    closing = setting.closing
    top = len(closing) - 1
    exchanged = last and _exchanges_sums(setting)
    done = [
        sum(max(setting.kept(n, after), setting.reduced(n) if exchanged else 0) for n in sizes) for sizes in closing
    ]
    ahead = [sum(setting.kept(n, before) for n in sizes) for sizes in closing]
    gathered = _gathered(setting)
    tied = any(len(group.places) > 1 for group in setting.groups)
    # From the second turn on, what the one before has left on its way is there as well.
    flight = [
        _in_flight(setting, closing if before and not exchanged else closing[place:], after, last)
        for place in range(top + 2)
    ]
    waiting = flight[0] if setting.zero_stage > 1 and before else 0
    yield kept.all_kept + kept.head + sum(ahead) + waiting + gathered[top]
    held = kept.shared + (kept.head_gradient if tied else 0)
    for place in range(top, 0, -1):
        # Every gradient of the place is there, and what was kept for them is gone.
        left = held + sum(kept.kept[: place - 1]) + kept.stream + sum(ahead[:place]) + gathered[place]
        rows = 0 if tied or place < top else kept.head_gradient
        yield left + ahead[place] + rows + _leaf(closing[place]) + sum(done[place + 1 :]) + flight[place + 1]
        if setting.zero_stage > 1:
            yield left + _leaf(closing[place]) + sum(done[place:]) + flight[place + 1] + _room(setting, closing[place])
        if place == top:
            continue
        at_work = kept.kept[place - 1] + kept.again[place - 1] + kept.working[place - 1]
        gradient = _leaf(closing[place]) + setting.element * _largest_parameter(setting, place)
        yield left + at_work + gradient + ahead[place] + sum(done[place + 1 :]) + flight[place + 1]
    rows = kept.head_gradient  # of the embedding, which is as large
    gradient = max(2 * rows if tied else rows, rows + _leaf(closing[0]))
    yield kept.shared + gradient + ahead[0] + sum(done[1:]) + flight[1] + gathered[0]
    sending = _leaf(closing[0]) + _room(setting, closing[0]) if setting.zero_stage > 1 else 0
    yield sum(done) + max(sending + flight[1], flight[0])


def _exchanges_sums(setting: Setting) -> bool:
    """Whether ranks exchange what they have summed, once a step."""
    return setting.zero_stage < 2 and setting.ranks > 1


def _leaf(sizes: Sequence[int]) -> int:
    """Bytes of one micro-batch's gradient of groups, as it comes."""
    return 4 * sum(sizes)


def _in_flight(setting: Setting, closed: Sequence[Sequence[int]], sums: int, last: bool) -> int:
    """Bytes of what ranks exchange while the backward pass goes on (`gradients.Flight`), of the groups that it may be:
    from stage 2 on gradients that would be gone else, and what comes."""
    sizes = [size for sizes in closed for size in sizes]
    if not sizes:
        return 0
    others = setting.ranks - 1  # of whose shards come as many as this rank has
    if setting.zero_stage > 1:
        # A large group's gradient stays whole until the last bucket of it was sent.
        room = _room(setting, sizes)
        return room + max(0, 4 * max(sizes) - setting.bucket_bytes) + room * others // setting.ranks
    if not last:
        return 0
    largest = max(max(sizes) for sizes in setting.closing if sizes)
    room = 2 * min(setting.bucket_bytes, 4 * sums * largest)
    return min(room, 4 * sums * sum(sizes)) * others // setting.ranks


def _room(setting: Setting, sizes: Sequence[int]) -> int:
    """Bytes of these groups that may be on their way at once, from stage 2 on."""
    largest = max(max(sizes) for sizes in setting.closing if sizes)
    return min(setting.bucket_bytes, 4 * largest, 4 * sum(sizes))


def _late(setting: Setting) -> int:
    """Elements of a rank's shard that are still on their way when a turn is over: of the last buckets, those that there
    is room for."""
    room, found = _room(setting, [size for sizes in setting.closing for size in sizes]), 0
    for group in setting.groups:  # the first are sent last
        for columns in reversed(bucket_columns(group.shard(setting.ranks), setting.ranks, setting.bucket_bytes)):
            width = columns.stop - columns.start
            if 4 * setting.ranks * (found + width) > room:
                return found
            found += width
    return found


def _gathered(setting: Setting) -> list[int]:
    """Stage 3: bytes of whole parameters at each place of the backward pass, with those of the place that is next."""
    places = len(setting.closing)
    if setting.zero_stage < 3:
        return [0] * places
    at = [
        sum(setting.element * one.padded(setting.ranks) for one in setting.groups if place in one.places)
        for place in range(places)
    ]
    # The backward pass of a lookup reads nothing of its table.
    at[0] -= sum(setting.element * one.padded(setting.ranks) for one in setting.groups if _is_looked_up(one))
    return [here + following for here, following in zip(at, [0, *at[:-1]], strict=True)]


def _is_looked_up(group: Group) -> bool:
    return all("_embeddings." in slot.name for slot in group.slots)


def _largest_parameter(setting: Setting, place: int) -> int:
    return max(slot.numel for group in setting.groups if place in group.places for slot in group.slots)


def _norm(setting: Setting) -> int:
    """All gradients, summed; and of each row of 64 elements its square, and that as an integer."""
    largest = max(max(sizes) for sizes in setting.closing if sizes)
    joined = 4 * largest // setting.ranks if setting.zero_stage > 1 else 0
    rows = setting.elements // setting.ranks // ALIGNMENT
    return setting.reduced(setting.elements) + max(joined, 16 * rows)
