"""Manifests of KubeRay: a Ray cluster on Kubernetes, a run with its own cluster, a served deployment.

The fields are those of the API `ray.io/v1` (https://github.com/ray-project/kuberay, ray-operator/config/crd/bases).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import yaml

from cluster.base import ClusterError
from cluster.config import Kubernetes, KubernetesPod

Kind = Literal["RayCluster", "RayJob", "RayService"]
KINDS: Sequence[str] = get_args(Kind)
API_VERSION = "ray.io/v1"
PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000}
SHARED_MEMORY_SHARE = 0.3  # of a pod's memory: what Ray takes for its object store by default


def manifest(
    kind: str, config: Kubernetes, overrides: Sequence[str], ray_version: str, serve_config: Mapping[str, Any] | None
) -> str:
    """The manifest of a kind as YAML. `overrides` are those of the run; `serve_config` is needed by RayService.

    Raises ClusterError for an unknown kind.
    """
    cluster = _cluster(config, ray_version)
    if kind == "RayCluster":
        spec = cluster
    elif kind == "RayJob":
        command = ["bloomline", "run", *overrides, "cluster=remote", "cluster.address=auto"]
        spec = {"entrypoint": shlex.join(command), "shutdownAfterJobFinishes": True, "rayClusterSpec": cluster}
    elif kind == "RayService":
        if serve_config is None:
            raise ClusterError("kind=RayService needs a deployment, and the pipeline has none: add a `deploy` step.")
        spec = {"serveConfigV2": yaml.safe_dump(dict(serve_config), sort_keys=False), "rayClusterConfig": cluster}
    else:
        raise ClusterError(f"kind={kind}: expected {', '.join(KINDS)}.")
    values = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": config.name}, "spec": spec}
    return str(yaml.safe_dump(values, sort_keys=False))


def _cluster(config: Kubernetes, ray_version: str) -> dict[str, Any]:
    head = {
        "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": str(config.head.cpus)},
        "template": _template(config, "ray-head", config.head, PORTS),
    }
    worker = {
        "groupName": "workers",
        "replicas": config.workers,
        "minReplicas": config.workers,
        "maxReplicas": config.workers,
        "rayStartParams": {},
        "template": _template(config, "ray-worker", config.worker, {}),
    }
    # The operator makes the token and gives it to every pod, so that only who may read its secret can run code.
    return {
        "rayVersion": ray_version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": head,
        "workerGroupSpecs": [worker],
    }


def _template(config: Kubernetes, name: str, pod: KubernetesPod, ports: Mapping[str, int]) -> dict[str, Any]:
    amounts: dict[str, str] = {"cpu": str(pod.cpus), "memory": str(pod.memory_bytes)}
    if pod.gpus:
        amounts["nvidia.com/gpu"] = str(pod.gpus)
    mounts = [{"name": "shared-memory", "mountPath": "/dev/shm"}]
    shared_memory = {"medium": "Memory", "sizeLimit": str(int(pod.memory_bytes * SHARED_MEMORY_SHARE))}
    volumes: list[dict[str, Any]] = [{"name": "shared-memory", "emptyDir": shared_memory}]
    if config.volume_claim:
        mounts.append({"name": "store", "mountPath": config.volume_path})
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": config.volume_claim}})
    container: dict[str, Any] = {
        "name": name,
        "image": config.image,
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "volumeMounts": mounts,
    }
    if ports:
        container["ports"] = [{"name": label, "containerPort": port} for label, port in ports.items()]
    if config.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in config.secrets]
    return {"spec": {"containers": [container], "volumes": volumes}}
