"""Checks a cluster: whether it can be joined or started, and whether its nodes have our versions and enough room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig, LocalCluster, RemoteCluster
from cluster.factory import RAY_ENVIRONMENT
from cluster.import_path import python_path
from pipelines.doctor.finding import Finding, first_line
from pipelines.formatting import size
from pipelines.redaction import redact_url
from stages.child_environment import child_environment

TIMEOUT_S = 90.0  # to start or join Ray, and to start a process on every node
LONGEST_ANSWER = 1 << 16
SAME = ("python", "ray")  # what the processes of a Ray cluster need the same version of
EXPECTED = (
    "Start it there with `ray start --head`, and use cluster.address=HOST:6379, or auto on one of its nodes. If it "
    "asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
)


def check_cluster(config: ClusterConfig, state: Path) -> Iterator[Finding]:
    """`state`: the directory of the store that all nodes have to share."""
    if isinstance(config, RemoteCluster) and config.address.startswith("http"):
        yield _dashboard(config)
    elif isinstance(config, LocalCluster | RemoteCluster):
        yield from _ray(config, state)
    else:
        yield Finding("ok", "cluster=inline: steps run in the process of the command, without Ray")


def _dashboard(config: RemoteCluster) -> Finding:
    """Whether a dashboard that accepts jobs answers."""
    name = f"cluster {redact_url(config.address)}"
    remedy = "Check cluster.address: `submit` needs the address of the dashboard, http://HOST:8265."
    from cluster.jobs import authorization

    try:
        request = urllib.request.Request(f"{config.address.rstrip('/')}/api/version")
        for header, value in authorization().items():
            request.add_unredirected_header(header, value)  # the token is for this address alone
        with urllib.request.urlopen(request, timeout=config.connect_timeout_s) as answer:
            said = json.loads(answer.read(LONGEST_ANSWER))["ray_version"]
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403)
        remedy = "Set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the token of the cluster." if refused else remedy
        return Finding("failed", f"{name} answers with status {error.code}", remedy)
    except (KeyError, TypeError, ValueError):
        return Finding("failed", f"{name} does not answer as a dashboard of Ray does", remedy)
    except OSError as error:
        return Finding("failed", f"{name}: {first_line(error)}", remedy)
    except Exception as error:  # an answer that is not HTTP
        return Finding("failed", f"{name} does not answer as a dashboard of Ray does: {first_line(error)}", remedy)
    if said != version("ray"):
        return Finding("warning", f"{name}: Ray {str(said)[:40]}, ours is {version('ray')}", "Use the same version.")
    return Finding("ok", f"{name}: Ray {said} accepts jobs")


def _ray(config: LocalCluster | RemoteCluster, state: Path) -> Iterator[Finding]:
    name = "Ray on this machine" if config.kind == "local" else f"cluster {redact_url(config.address)}"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cluster.diagnosis", str(state)],
            input=config.model_dump_json().encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            env=child_environment({"PYTHONPATH": python_path(), **RAY_ENVIRONMENT, **_set(RAY_ENVIRONMENT)}),
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Finding("failed", f"{name} did not answer as Ray does within {TIMEOUT_S:g} s", EXPECTED)
        return
    said = _last_object(done.stdout)
    if said is None:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        yield Finding("failed", f"{name}: {lines[-1][:300]}", EXPECTED)
    elif "error" in said:
        yield Finding("failed", f"{name}: {said['error'].strip().splitlines()[0][:400]}", EXPECTED)
    else:
        yield Finding(
            "ok",
            f"{name}: {len(said['nodes'])} node{'s' if len(said['nodes']) != 1 else ''}, Ray {said['ours']['ray']}",
        )
        for node in said["nodes"]:
            yield from _node(node, said["ours"], config)


def _node(node: Mapping[str, Any], ours: Mapping[str, Any], config: LocalCluster | RemoteCluster) -> Iterator[Finding]:
    resources, facts = node["resources"], node["facts"]
    memory = size(int(resources.get("memory", 0)))
    name = f"node {node['address']}"
    text = f"{name}: {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs, {memory} of memory"
    if facts is None:
        remedy = "See `ray status` and the logs of that node; a process has to start there within 20 s."
        yield Finding("failed", f"{text}; no process could be started there: {node['error'][:200]}", remedy)
        return
    yield Finding("ok", text)
    if others := [f"{what} {facts[what]} (ours: {ours[what]})" for what in SAME if facts[what] != ours[what]]:
        yield Finding("failed", f"{name} has {', '.join(others)}", "Use the same versions on all nodes and here.")
    if config.kind == "remote" and facts["bloomline"] != ours["bloomline"]:
        found = f"has bloomline {facts['bloomline']}" if facts["bloomline"] else "has no bloomline"
        yield Finding("failed", f"{name} {found} (ours: {ours['bloomline']})", "Install the same version there.")
    if facts["sees_state"] is False:
        remedy = (
            "Set store.state_directory (with a store in a directory: store.root) to one that every node mounts at the "
            "same path. Without it, steps there fail, and what ranks and workers print is lost."
        )
        yield Finding("failed", f"{name} does not see the state directory of the store", remedy)
    shared, wanted = facts["shared_memory_bytes"], int(resources.get("object_store_memory", 0))
    if config.kind == "remote" and shared is not None and shared < min(wanted, LocalCluster().object_store_bytes):
        remedy = "Give the node more: docker run --shm-size=1g, or an emptyDir with medium: Memory at /dev/shm."
        yield Finding("warning", f"{name}: {size(shared)} of shared memory", remedy)


def _set(names: Mapping[str, str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _last_object(output: bytes) -> dict[str, Any] | None:
    """The JSON object of the last line; None if there is none."""
    try:
        found = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return found if isinstance(found, dict) else None
