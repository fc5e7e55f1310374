"""Cluster configs, and the detected resources of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from cluster import machine
from cluster.base import ClusterError
from cluster.config import ClusterConfig, InlineCluster, LocalCluster, RemoteCluster
from cluster.factory import executor, nodes

ADAPTER: TypeAdapter[InlineCluster | LocalCluster | RemoteCluster] = TypeAdapter(ClusterConfig)
CONF = Path(__file__).parents[2] / "conf" / "cluster"


@pytest.mark.parametrize("name", ["inline", "local", "remote"])
def test_every_shipped_config_is_valid(name: str) -> None:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert values.pop("serve_port") == "${port}"
    assert ADAPTER.validate_python({**values, "serve_port": 8000}).kind == name


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "slurm"},
        {"kind": "local", "cpus": 0},
        {"kind": "local", "address": "auto"},
        {"kind": "local", "object_store_bytes": 1},
        {"kind": "remote", "address": "head"},
        {"kind": "remote", "address": "ray://head:10001"},
        {"kind": "inline", "cpus": 1},
        {"kind": "remote", "http": {}},
    ],
)
def test_invalid_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(values)


@pytest.mark.parametrize(
    "address", ["auto", "head:6379", "10.0.0.1:6379", "[::1]:6379", "http://head:8265", "https://h/ray"]
)
def test_valid_addresses_are_accepted(address: str) -> None:
    assert RemoteCluster(address=address).address == address


def test_a_node_has_the_configured_resources_or_the_detected_ones() -> None:
    (node,) = nodes(LocalCluster(cpus=3, gpus=2, memory_bytes=7, custom={"disk": 1}))
    assert (node.cpus, node.gpus, node.memory_bytes, node.custom) == (3, 2, 7, {"disk": 1})
    (node,) = nodes(InlineCluster())
    assert (node.cpus, node.memory_bytes) == (machine.cpus(), machine.memory_bytes())


def test_limits_of_a_container_are_respected(tmp_path: Path) -> None:
    cgroup = tmp_path / "sys/fs/cgroup"
    (cgroup / "cpu").mkdir(parents=True)
    (cgroup / "memory").mkdir()
    assert machine.memory_bytes(tmp_path) == machine.memory_bytes(Path("/nowhere"))
    (cgroup / "cpu/cpu.cfs_quota_us").write_text("50000")
    (cgroup / "cpu/cpu.cfs_period_us").write_text("100000")
    (cgroup / "memory/memory.limit_in_bytes").write_text("1000")
    assert (machine.cpus(tmp_path), machine.memory_bytes(tmp_path)) == (1, 1000)
    (cgroup / "cpu.max").write_text("max 100000")
    (cgroup / "memory.max").write_text("max")
    assert machine.cpus(tmp_path) == machine.cpus(Path("/nowhere"))
    assert machine.memory_bytes(tmp_path) == machine.memory_bytes(Path("/nowhere"))


def test_gpus_are_the_visible_device_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpus(tmp_path) == 3
    for visible, count in {"": 0, "-1": 0, "1": 1, "0,1": 2}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert machine.gpus(tmp_path) == count


@pytest.mark.parametrize(("address", "message"), [("127.0.0.1:9", "Nothing answers"), ("http://127.0.0.1:9", "submit")])
def test_a_cluster_that_cannot_be_joined_is_one_clear_error(address: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        executor(RemoteCluster(address=address))
