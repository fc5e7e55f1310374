"""The peak memory of a step on one rank, found by simulating the step in bytes. Free of torch.

The simulation yields the bytes at each moment: at every position of a micro-batch's backward pass, and at what follows
it (the last exchange, the norm of the sum, the collection of a checkpoint). It counts what `zero.py` and the modules
that it uses allocate and free, apart from parameters and optimizer states, which always exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from stages.training.activation_memory import Activations
from stages.training.layout import ALIGNMENT, Group, bucket_columns
from stages.training.summation_tree import contiguous_run, sums_held


@dataclass(frozen=True)
class Setting:
    """What the memory of a step depends on, apart from its activations."""

    groups: Sequence[Group]
    ranks: int
    zero_stage: int
    element: int  # bytes of a parameter in the precision of compute
    bucket_bytes: int
    micro_batches: int
    fixed_order: bool = True  # gradients are added in the order that is the same for every number of ranks

    @cached_property
    def trained(self) -> Sequence[Group]:
        return [group for group in self.groups if not group.frozen]

    @cached_property
    def closing(self) -> list[list[int]]:
        """For each position, the padded sizes of the groups whose gradient is complete when the backward pass leaves
        it."""
        count = max(position for group in self.groups for position in group.positions) + 1
        return [
            [one.padded(self.ranks) for one in self.trained if min(one.positions) == position]
            for position in range(count)
        ]

    @cached_property
    def sums(self) -> set[tuple[int, ...]]:
        """The numbers of partial sums that a rank holds after each of its turns, for every rank; without duplicates."""
        if self.zero_stage < 2:
            runs = [contiguous_run(rank, self.ranks, self.micro_batches) for rank in range(self.ranks)]
            return {tuple(sums_held(run)) if self.fixed_order else (1,) * len(run) for run in runs}
        held = sums_held(range(self.micro_batches))
        done = range(self.ranks, self.micro_batches + self.ranks, self.ranks)
        return {tuple(held[min(count, self.micro_batches) - 1] for count in done)}

    @cached_property
    def turns(self) -> set[tuple[int, int, bool]]:
        """The distinct turns of all ranks: partial sums before and after, and whether the turn is the last one."""
        return {
            (before, after, turn == len(held))
            for held in self.sums
            for turn, (before, after) in enumerate(zip((0, *held), held, strict=False), start=1)
        }

    @property
    def exchanges_sums(self) -> bool:
        """Whether ranks exchange their partial sums once a step."""
        return self.zero_stage < 2 and self.ranks > 1

    @property
    def elements(self) -> int:
        return sum(sum(sizes) for sizes in self.closing)

    @property
    def largest(self) -> int:
        """Elements of the largest group that is trained."""
        return max(max(sizes) for sizes in self.closing if sizes)

    def sum_bytes(self, elements: int, sums: int) -> int:
        """Bytes of `sums` partial sums of a gradient, between two turns."""
        return sums * 4 * elements // (self.ranks if self.zero_stage > 1 else 1)

    def reduced_bytes(self, elements: int) -> int:
        """Bytes of the gradient of the whole batch."""
        return 4 * elements // (self.ranks if self.zero_stage else 1)


def most_gradient_bytes(setting: Setting) -> int:
    """The most bytes of gradients that are held between two turns or at the end of the step."""
    late = _late_elements(setting) if setting.zero_stage > 1 else 0
    between = [
        setting.sum_bytes(setting.elements, after) + 4 * late * (before - after)
        for before, after, last in setting.turns
        if not (last and setting.exchanges_sums)
    ]
    return max([setting.reduced_bytes(setting.elements), *between])


def step_peak(setting: Setting, activations: Activations) -> int:
    """The peak bytes of gradients, activations and temporary memory in a step."""
    passes = (moment for turn in setting.turns for moment in _backward_pass(setting, activations, *turn))
    return max(*passes, _norm(setting))


def collection(setting: Setting) -> int:
    """Bytes of the group that rank 0 is collecting for a checkpoint, at most."""
    frozen = [4 * group.numel for group in setting.groups if group.frozen]
    return max(12 * setting.largest, *frozen, 0)


def _backward_pass(setting: Setting, kept: Activations, before: int, after: int, last: bool) -> Iterator[int]:
    """The moments of a turn in which each group's partial sums grow from `before` to `after`."""
    closing = setting.closing
    top = len(closing) - 1
    exchanged = last and setting.exchanges_sums
    done = [
        sum(max(setting.sum_bytes(n, after), setting.reduced_bytes(n) if exchanged else 0) for n in sizes)
        for sizes in closing
    ]
    ahead = [sum(setting.sum_bytes(n, before) for n in sizes) for sizes in closing]
    gathered = _gathered(setting)
    tied = any(len(group.positions) > 1 for group in setting.trained)
    # From the second turn on, operations that the previous turn left in flight exist as well.
    in_flight = [
        _in_flight(setting, closing if before and not exchanged else closing[position:], after, last)
        for position in range(top + 2)
    ]
    waiting = in_flight[0] if setting.zero_stage > 1 and before else 0
    yield kept.all_kept + kept.head + sum(ahead) + waiting + gathered[top]
    shared = kept.shared + (kept.head_gradient if tied else 0)
    for position in range(top, 0, -1):
        # Every gradient of the position exists, and the activations that were kept for it are freed.
        left = shared + sum(kept.kept[: position - 1]) + kept.stream + sum(ahead[:position]) + gathered[position]
        rows = 0 if tied or position < top else kept.head_gradient
        whole = _micro_batch_gradient(closing[position])
        yield left + ahead[position] + rows + whole + sum(done[position + 1 :]) + in_flight[position + 1]
        if setting.zero_stage > 1:
            room = _in_flight_limit(setting, closing[position])
            yield left + whole + sum(done[position:]) + in_flight[position + 1] + room
        if position == top:
            continue
        current = kept.kept[position - 1] + kept.recomputed[position - 1] + kept.working[position - 1]
        gradient = whole + setting.element * _largest_parameter(setting, position)
        yield left + current + gradient + ahead[position] + sum(done[position + 1 :]) + in_flight[position + 1]
    rows = kept.embedding_gradient
    whole = _micro_batch_gradient(closing[0])
    gradient = max(2 * rows if tied else rows, rows + whole)
    yield kept.shared + gradient + ahead[0] + sum(done[1:]) + in_flight[1] + gathered[0]
    sending = whole + _in_flight_limit(setting, closing[0]) if setting.zero_stage > 1 else 0
    yield sum(done) + max(sending + in_flight[1], in_flight[0])


def _micro_batch_gradient(sizes: Sequence[int]) -> int:
    """Bytes of the gradients of groups with these sizes for one micro-batch."""
    return 4 * sum(sizes)


def _in_flight(setting: Setting, closed: Sequence[Sequence[int]], sums: int, last: bool) -> int:
    """Bytes of exchanges in flight for the `closed` groups: what is received, and from stage 2 on also the gradients
    that would otherwise be freed."""
    sizes = [size for sizes in closed for size in sizes]
    if not sizes:
        return 0
    others = setting.ranks - 1  # each sends as many shards as this rank has
    if setting.zero_stage > 1:
        # The gradient of a large group stays whole until its last bucket was sent.
        room = _in_flight_limit(setting, sizes)
        return room + max(0, 4 * max(sizes) - setting.bucket_bytes) + room * others // setting.ranks
    if not last:
        return 0
    room = 2 * min(setting.bucket_bytes, 4 * sums * setting.largest)
    return min(room, 4 * sums * sum(sizes)) * others // setting.ranks


def _in_flight_limit(setting: Setting, sizes: Sequence[int]) -> int:
    """Bytes of these groups that can be in flight at once, from stage 2 on."""
    return min(setting.bucket_bytes, 4 * setting.largest, 4 * sum(sizes))


def _late_elements(setting: Setting) -> int:
    """Elements of a rank's shard whose exchange is still in flight when a turn is over: the last buckets that fit into
    the limit."""
    limit = _in_flight_limit(setting, [size for sizes in setting.closing for size in sizes])
    late = 0
    for group in setting.trained:  # the first groups are sent last
        for columns in reversed(bucket_columns(group.shard(setting.ranks), setting.ranks, setting.bucket_bytes)):
            width = columns.stop - columns.start
            if 4 * setting.ranks * (late + width) > limit:
                return late
            late += width
    return late


def _gathered(setting: Setting) -> list[int]:
    """Stage 3: bytes of gathered parameters at each position of the backward pass, with those of the next position."""
    positions = len(setting.closing)
    if setting.zero_stage < 3:
        return [0] * positions
    at = [
        sum(setting.element * one.padded(setting.ranks) for one in setting.groups if position in one.positions)
        for position in range(positions)
    ]
    # The backward pass of a lookup does not read its table.
    at[0] -= sum(setting.element * one.padded(setting.ranks) for one in setting.groups if _is_lookup(one))
    return [here + following for here, following in zip(at, [0, *at[:-1]], strict=True)]


def _is_lookup(group: Group) -> bool:
    return all("_embeddings." in slot.name for slot in group.slots)


def _largest_parameter(setting: Setting, position: int) -> int:
    trained = [group for group in setting.trained if position in group.positions]
    return max((slot.numel for group in trained for slot in group.slots), default=0)


def _norm(setting: Setting) -> int:
    """Bytes of all summed gradients and, for each row of `ALIGNMENT` elements, of its square in float64 and int64."""
    joined = 4 * setting.largest // setting.ranks if setting.zero_stage > 1 else 0
    rows = setting.elements // setting.ranks // ALIGNMENT
    return setting.reduced_bytes(setting.elements) + max(joined, 16 * rows)
