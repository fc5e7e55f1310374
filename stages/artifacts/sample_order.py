"""The order of training samples, by arithmetic alone: which sample comes at a global number.

A seeded permutation of each epoch is computed for one index at a time. There is no state to save, the order does not
depend on the number of ranks, and any position can be reached at once. The permutation is a Feistel network over the
smallest even number of bits that holds the epoch, iterated until its value is inside the epoch (cycle walking; Black
and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
"""

from __future__ import annotations

_ROUNDS = 4
_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """The finaliser of SplitMix64: every input bit reaches every output bit."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def shuffled(number: int, size: int, seed: int) -> int:
    """The sample (0 <= result < size) at global number `number` (>= 0).

    Every run of `size` numbers that starts at a multiple of `size` (an epoch) visits each sample once. Epochs have
    different orders.
    """
    epoch, position = divmod(number, size)
    half = max((size - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    keys = [_mix(_mix(_mix(seed) ^ epoch) + turn) for turn in range(_ROUNDS)]
    while True:
        left, right = position >> half, position & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        position = (left << half) | right
        if position < size:
            return position
