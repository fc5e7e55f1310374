"""What a plan reports about memory: whether each step fits, how much it needs, and which settings would fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.base import Node
from pipelines import cli
from pipelines.feasibility import fit, fit_together, shortage
from stages.base import Demand, Resources

GIB = 1 << 30


def node(gib: float, cpus: int = 4, of_gpu: float | None = None) -> Node:
    """`of_gpu`: memory of each of two GPUs in GiB, 0 if it is not known; None: there are none."""
    gpus = 0 if of_gpu is None else 2
    return Node(cpus, gpus, memory_bytes=int(gib * GIB), custom={}, gpu_memory_bytes=int((of_gpu or 0) * GIB))


def ranks(count: int, gib: float, fewer: dict[int, float] | None = None) -> Demand:
    smaller = {n: Resources(memory_bytes=int(size * GIB)) for n, size in (fewer or {}).items()}
    return Demand(
        task=Resources(cpus=0), ranks=count, rank=Resources(cpus=1, memory_bytes=int(gib * GIB)), fallback_sizes=smaller
    )


def on_gpus(count: int, gib: float) -> Demand:
    rank = Resources(cpus=1, gpus=1, memory_bytes=GIB, gpu_memory_bytes=int(gib * GIB))
    return Demand(task=Resources(cpus=0), ranks=count, rank=rank)


@pytest.mark.parametrize(
    ("demand", "nodes", "lack", "said"),
    [
        (ranks(2, 3), [node(8)], None, "fits: needs 3.0 GiB a rank, one of 2 has 4.0 GiB"),
        (ranks(2, 5), [node(8)], "needs 5.0 GiB a rank, one of 2 has 4.0 GiB", None),
        (ranks(2, 5), [node(8), node(8)], None, "fits: needs 5.0 GiB a rank, a node has 8.0 GiB"),
        # Enough on the whole, but not on any two nodes.
        (ranks(2, 5), [node(9), node(3)], "needs 2 ranks with 1 CPU, 5.0 GiB each; the nodes have room for 1", None),
        (
            ranks(2, 5, {1: 7}), [node(8)], None,
            "needs 5.0 GiB a rank, one of 2 has 4.0 GiB; fits with 1 rank: needs 7.0 GiB a rank, a node has 8.0 GiB",
        ),
        (Demand(task=Resources(memory_bytes=3 * GIB)), [node(8)], None, "fits: needs 3.0 GiB, a node has 8.0 GiB"),
        (Demand(ranks=2, unit="replica", rank=Resources(memory_bytes=9 * GIB)), [node(8)],
         "needs 9.0 GiB a replica, one of 2 has 4.0 GiB", None),
        (on_gpus(2, 30), [node(8, of_gpu=40)], None,
         "fits: needs 30.0 GiB of GPU memory a rank, a GPU has 40.0 GiB; "
         "needs 1.0 GiB a rank, one of 2 has 4.0 GiB"),
        (on_gpus(2, 50), [node(8, of_gpu=40)], "needs 50.0 GiB of GPU memory a rank, a GPU has 40.0 GiB", None),
        (on_gpus(2, 50), [node(8, of_gpu=0)], None,
         "fits: needs 50.0 GiB of GPU memory a rank; the memory of a GPU is not known (set cluster.gpu_memory_bytes); "
         "needs 1.0 GiB a rank, one of 2 has 4.0 GiB"),
        (on_gpus(3, 50), [node(8, of_gpu=40)],
         "needs 3 GPUs, the cluster has 2; needs 50.0 GiB of GPU memory a rank, a GPU has 40.0 GiB", None),
        (on_gpus(6, 30), [node(4, of_gpu=40)],
         "needs 6 GPUs, the cluster has 2; needs 6 CPUs, the cluster has 4; "
         "needs 30.0 GiB of GPU memory a rank, a GPU has 40.0 GiB; needs 1.0 GiB a rank, one of 6 has 0.7 GiB", None),
        (ranks(64, 0.5), [node(24, cpus=2)],
         "needs 64 CPUs, the cluster has 2; needs 0.5 GiB a rank, one of 64 has 0.4 GiB", None),
        (ranks(64, 0.1), [node(24, cpus=2)], "needs 64 CPUs, the cluster has 2", None),
        (Demand(task=Resources(cpus=1, custom={"licence": 2})), [node(8)], "needs 2 licence, the cluster has 0", None),
        (Demand(task=Resources(cpus=5)), [node(8), node(8)],
         "the step needs 5 CPUs; no node has that (the largest has 4 CPUs, 8.0 GiB)", None),
        (Demand(), [node(8)], None, ""),
    ],
)  # fmt: skip
def test_what_is_lacking_and_what_fits(demand: Demand, nodes: list[Node], lack: str | None, said: str | None) -> None:
    assert shortage(demand, nodes) == lack
    if said is not None:
        assert fit(demand, nodes) == said


Planned = Callable[..., tuple[int, dict[str, str]]]  # GiB of memory, more words -> exit code, each step's line


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Planned:
    """Plans the debug pipeline on a machine of two CPUs; exit code, and each step's plan and reason in one line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")

    def call(memory_gib: int, *words: str) -> tuple[int, dict[str, str]]:
        machine = ["cluster.cpus=2", f"cluster.memory_bytes={memory_gib * GIB}", f"store.root={tmp_path / 'store'}"]
        code = cli.run(["plan", "pipeline=debug", *machine, *words])
        lines = [line.split(None, 2) for line in capsys.readouterr().out.splitlines() if line.strip()]
        return code, {line[0]: line[2] for line in lines if len(line) == 3}

    return call


def test_every_step_that_holds_a_model_says_that_it_fits(plan: Planned) -> None:
    code, said = plan(24)
    assert code == 0
    for step, what in {"pretrain": "a rank, one of 2 has 12.0", "moe": "a rank, one of 2 has 12.0",
                       "quantize": ", a node has 24.0", "evaluate": ", a node has 24.0",
                       "deploy": "a replica, a node has 24.0"}.items():  # fmt: skip
        assert re.fullmatch(rf"run +never run; fits: needs 0\.\d GiB ?{re.escape(what)} GiB", said[step]), said[step]


def test_the_smallest_stage_that_fits_is_suggested_and_does(plan: Planned) -> None:
    large = ["model@steps.pretrain.model=bloom_560m", "steps.pretrain.global_batch_size=16"]
    stage_1 = [*large, "steps.pretrain.zero_stage=0"]
    code, said = plan(22, *stage_1)
    assert code == 3
    match = re.search(r"blocked +needs ([\d.]+) GiB a rank, one of 2 has 11.0 GiB; it fits with (.*)", said["pretrain"])
    assert match, said["pretrain"]
    assert match[2] == "steps.pretrain.zero_stage=2"
    code, said = plan(22, *large, "steps.pretrain.zero_stage=1", "until=pretrain")
    assert code == 3
    code, said = plan(22, *large, match[2], "until=pretrain")
    assert code == 0
    assert "fits: needs" in said["pretrain"]


def test_where_nothing_fits_the_least_is_reported(plan: Planned) -> None:
    code, said = plan(24, "model@steps.pretrain.model=bloom_176b", "until=pretrain")
    assert code == 3
    assert re.search(r"blocked +needs [\d.]+ GiB a rank, one of 2 has 12.0 GiB; the least is [\d.]+ GiB, with steps",
                     said["pretrain"]), said["pretrain"]  # fmt: skip


@pytest.mark.parametrize(
    ("each", "most"),
    [
        (Resources(cpus=1), 4),
        (Resources(cpus=0.1), 40),
        (Resources(cpus=0, memory_bytes=1 << 30), 8),
        (Resources(cpus=0, custom={"licence": 1}), 2),
        (Resources(cpus=0, custom={"unknown": 1}), 0),
    ],
)
def test_steps_run_together_as_long_as_the_nodes_have_what_they_ask(each: Resources, most: int) -> None:
    nodes = [Node(cpus=2, gpus=0, memory_bytes=4 << 30, custom={"licence": 1})] * 2
    assert fit_together([Demand(task=each)] * most, nodes)
    assert not fit_together([Demand(task=each)] * (most + 1), nodes)
    assert fit_together([Demand(task=Resources(cpus=0), ranks=most, rank=each)], nodes)
    assert not fit_together([Demand(task=each, ranks=most, rank=each)], nodes)


def test_ranks_on_gpus_are_compared_with_the_memory_of_gpus(plan: Planned) -> None:
    """Without a GPU the step is blocked; offloading to host memory is suggested where a GPU's memory is too small."""
    code, said = plan(24, "steps.pretrain.gpus_per_rank=1", "until=pretrain")
    assert code == 3
    assert said["pretrain"].endswith("needs 2 GPUs, the cluster has 0")
    large = ["model@steps.pretrain.model=bloom_560m", "steps.pretrain.gpus_per_rank=1", "cluster.gpus=2"]
    code, said = plan(64, *large, f"cluster.gpu_memory_bytes={16 * GIB}", "until=pretrain")
    assert code == 0
    assert re.search(r"fits: needs [\d.]+ GiB of GPU memory a rank, a GPU has 16.0 GiB; needs", said["pretrain"])
    code, said = plan(64, *large, f"cluster.gpu_memory_bytes={7 * GIB}", "until=pretrain")
    assert code == 3
    match = re.search(r"blocked +needs .* of GPU memory a rank, a GPU has 7.0 GiB; it fits with (.*)", said["pretrain"])
    assert match, said["pretrain"]
    assert "offload_optimizer=host" in match[1]
    code, said = plan(64, *large, f"cluster.gpu_memory_bytes={7 * GIB}", "until=pretrain", *match[1].split())
    assert code == 0
