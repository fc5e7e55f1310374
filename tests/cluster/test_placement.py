"""Which processes fit on which nodes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.base import Node
from cluster.placement import bundle, describe, describe_nodes, fits
from stages.base import Resources

SMALL = Node(cpus=2, gpus=0, memory_bytes=4 * 2**30, custom={})
LARGE = Node(cpus=8, gpus=4, memory_bytes=64 * 2**30, custom={"disk": 1})


def test_processes_do_not_span_nodes() -> None:
    assert fits(Resources(cpus=2), 5, [SMALL, LARGE])
    assert not fits(Resources(cpus=2), 6, [SMALL, LARGE])
    assert not fits(Resources(cpus=9), 1, [SMALL, LARGE])
    assert not fits(Resources(cpus=1, gpus=1), 5, [SMALL, LARGE])
    assert fits(Resources(cpus=0.1), 80, [LARGE])
    assert not fits(Resources(cpus=1, memory_bytes=5 * 2**30), 1, [SMALL])
    assert not fits(Resources(custom={"disk": 1}), 2, [LARGE])
    assert fits(Resources(cpus=0), 1000, [SMALL])
    assert not fits(Resources(), 1, [])


@given(st.integers(1, 20), st.floats(0.1, 10), st.integers(0, 3))
def test_what_fits_also_fits_with_more_nodes_or_fewer_processes(count: int, cpus: float, gpus: int) -> None:
    asked = Resources(cpus=cpus, gpus=gpus)
    if fits(asked, count, [LARGE]):
        assert fits(asked, count, [LARGE, SMALL])
        assert fits(asked, count - 1, [LARGE])


def test_a_bundle_is_never_empty() -> None:
    assert bundle(Resources(cpus=0)) == {"CPU": 0.001}
    asked = Resources(cpus=1, gpus=2, memory_bytes=3, custom={"disk": 4})
    assert bundle(asked) == {"CPU": 1, "GPU": 2, "memory": 3, "disk": 4}


def test_descriptions() -> None:
    assert describe(Resources(cpus=2, gpus=1, memory_bytes=3 * 2**30)) == "2 CPUs, 1 GPU, 3.0 GiB"
    assert describe(Resources(cpus=0)) == "nothing"
    assert describe_nodes([SMALL]) == "1 node (2 CPUs, 4.0 GiB)"
