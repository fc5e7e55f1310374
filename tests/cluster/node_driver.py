"""A driver on a node of a cluster whose nodes lack this project. As it is the program, its work is pickled by value.

Arguments: what to do, the address of the cluster, and what that needs. Prints the outcome as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from cluster.base import Gang, Launcher, Message, Outcome, Send
from cluster.config import RemoteCluster
from cluster.factory import executor
from stages.base import Application, Demand, Rank, Resources

task, address, *words = sys.argv[1:]
node = words[0] if words else ""


def meet(rank: Rank) -> list[Any]:
    """Meet the other ranks, and add 1 on each."""
    import torch
    import torch.distributed as dist

    from stages.parallel.process_group import process_group

    with process_group(rank, timeout_s=60):
        total = torch.ones(1)
        dist.all_reduce(total)
    return [total.item(), os.environ.get("GLOO_SOCKET_IFNAME"), os.environ.get("NCCL_SOCKET_IFNAME")]


def ranks(launcher: Launcher, send: Send) -> Any:
    return launcher.gang("step", Gang(meet, ranks=3), send)


def count(launcher: Launcher, send: Send) -> str:
    """Send a number twice a second, as often as the third argument says."""
    for number in range(int(words[1])):
        send(Message("step", "metrics", {"number": number}))
        time.sleep(0.5)
    return "ended"


def serve(launcher: Launcher, send: Send) -> Any:
    """Serve two replicas that need a CPU each; the nodes that answer."""
    served = launcher.serve(Application("nodes", "where:create", replicas=2, resources=Resources(cpus=1)))
    try:
        return sorted({urlopen(f"{served.url}/where").read().decode() for _ in range(60)})
    finally:
        served.stop()


def named_actors(launcher: Launcher, send: Send) -> Any:
    import ray

    return [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]


def on(node: str) -> Resources:
    return Resources(cpus=0, custom={f"node:{node}": 0.001} if node else {})


tasks = {
    "ranks": [(ranks, Demand(task=Resources(cpus=0), ranks=3))],
    "count": [(count, Demand(task=on(node)))],
    "serve": [(serve, Demand(task=on(node), ranks=2)), (named_actors, Demand(task=Resources(cpus=0)))],
}
packages = [Path(word) for word in words if word.endswith(".py")]
sys.path += [str(package.parent) for package in packages]
found: dict[str, Any] = {"numbers": [], "notes": [], "results": []}
with executor(RemoteCluster(address=address), packages) as joined:
    for work, demand in tasks[task]:
        joined.start("step", work, demand)
        ended: Outcome | None = None
        while ended is None:
            for event in joined.wait(0.5):
                if isinstance(event, Outcome):
                    ended = event
                elif event.kind == "metrics":
                    found["numbers"].append(event.body["number"])
                    print("number", event.body["number"], flush=True)
                else:
                    found["notes"].append(event.body["text"])
        found["results"].append([ended.state, ended.result, ended.error])
print(json.dumps(found))
