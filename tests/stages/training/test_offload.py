"""Training state in files: larger than memory, with the same bits, and gone when the process dies."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.base import StageError
from stages.parallel.collectives import Collectives
from stages.training import memory_usage
from stages.training.memory_plan import Accounting, state_bytes
from stages.training.offload import FileStorage
from stages.training.recipe import Execution
from stages.training.zero import ShardedModel
from tests.stages.training import limited, toy
from tests.stages.training.toy import RECIPE

ROOT = Path(__file__).parents[3]
FILES = {"zero_stage": 3, "offload_optimizer": "file", "offload_parameters": "file"}


def start(folder: Path, fields: dict[str, Any], allowed_bytes: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", limited.__name__, str(folder), json.dumps(fields), str(allowed_bytes)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="limits of private memory are Linux's")
def test_a_state_larger_than_the_memory_limit_trains_to_the_same_bits(tmp_path: Path) -> None:
    parameters = sum(parameter.numel() for parameter in toy.Toy(limited.WIDTH, limited.BLOCKS).parameters())
    allowed = int(state_bytes(parameters, 0, 1, Accounting(4, 4, 8)) * 0.6)
    free = start(tmp_path / "free", {}, 0)
    bound = start(tmp_path / "bound", {}, allowed)
    offloaded = start(tmp_path / "offloaded", {**FILES, "checkpoint_buffer_bytes": 0}, allowed)
    (wanted, said), (_, refusal), (found, complaint) = (
        one.communicate(timeout=200) for one in (free, bound, offloaded)
    )
    assert free.returncode == 0, said
    assert bound.returncode != 0
    assert "can't allocate memory" in refusal
    assert offloaded.returncode == 0, complaint
    assert found == wanted
    assert len(found.strip()) == 64


def test_the_size_of_offloaded_state(tmp_path: Path) -> None:
    """The columns are bytes per element; each vector begins at a page boundary."""
    optimizer = {"offload_optimizer": "file"}
    for precision, fields, in_memory, in_files in (
        ("float32", FILES, 0, 12),
        ("float32", optimizer, 4, 8),
        ("bfloat16", FILES, 0, 14),
        ("bfloat16", optimizer, 2, 12),
    ):
        task = toy.build(RECIPE)
        execution = Execution.model_validate({**fields, "offload_folder": str(tmp_path)})
        model = ShardedModel(task, RECIPE.model_copy(update={"precision": precision}), execution, Collectives())
        padded = sum(one.layout.padded(1) for one in model.groups)
        held = memory_usage.held(model)
        assert (held["parameters"], held["master"], held["optimizer"]) == (in_memory * padded, 0, 0)
        assert in_files * padded <= held["files"] <= in_files * padded + 4 * mmap.PAGESIZE * len(model.groups)


def test_a_file_keeps_what_was_written(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        storage = FileStorage(tmp_path, threads, torch.float32, {"a": 1000, "b": 3})
        with storage.open(changed=True) as vectors:
            assert not vectors["a"].any()
            vectors["a"].copy_(torch.arange(1000.0))
            vectors["b"].fill_(7)
        for _ in range(3):
            storage.prefetch()
            storage.prefetch()
            with storage.open() as vectors:
                assert vectors["a"].equal(torch.arange(1000.0))
                assert vectors["b"].tolist() == [7, 7, 7]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """Space is allocated before anything is written: a write to a mapping on a full disk would kill the process."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with (
            ThreadPoolExecutor(1) as threads,
            pytest.raises(StageError, match=r"could not be offloaded to .*offload_fo"),
        ):
            FileStorage(tmp_path, threads, torch.float32, {"a": 1 << 16})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_nothing_is_left_of_a_killed_process(tmp_path: Path) -> None:
    """While the process runs, the files have no names, so that no other process can read or change them."""
    fields = {**FILES, "offload_folder": str(tmp_path / "offload")}
    process = start(tmp_path / "run", fields, 0)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "run").glob("large/**/*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    opened = [os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    process.kill()
    process.communicate()
    assert any(str(tmp_path / "offload") in target for target in opened)
    assert list((tmp_path / "offload").iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"offload_parameters": "file", "zero_stage": 2}, "needs zero_stage 3, not 2"),
        ({"offload_activations": "file"}, "set recompute to full or selective"),
        ({"ranks": 2, "minimum_ranks": 3}, "minimum_ranks 3 must be at most ranks 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Execution.model_validate(fields)
