"""A driver that prints, as JSON, which files a step, a rank, a map worker and a Serve replica import.

Arguments: our root, the address of the cluster ("local" to start one), and the user's packages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

root, address, *packages = sys.argv[1:]
sys.path.insert(0, root)
sys.path.extend(str(Path(package).parent) for package in packages)

from cluster.base import Gang, Items, Launcher, Outcome, Send  # noqa: E402  # needs the path
from cluster.config import LocalCluster, RemoteCluster  # noqa: E402
from cluster.factory import executor  # noqa: E402
from stages.base import Application, Demand, Resources  # noqa: E402


def step(launcher: Launcher, send: Send) -> dict[str, Any]:
    from user_package.data.facts import imported

    served = launcher.serve(Application("facts", "user_package.data.facts:application"))
    try:
        replica = json.load(urlopen(f"{served.url}/imported"))
    finally:
        served.stop()
    return {
        "step": imported(),
        "rank": launcher.gang("step", Gang(imported), send)[0],
        "map worker": next(launcher.map("step", Items(imported, [0], workers=2), send))[1],
        "replica": replica,
    }


config = LocalCluster(cpus=2, gpus=0) if address == "local" else RemoteCluster(address=address)
with executor(config, [Path(package) for package in packages]) as started:
    started.start("step", step, Demand(task=Resources(cpus=0), ranks=1))
    while not (ended := [event for event in started.wait(1) if isinstance(event, Outcome)]):
        pass
    print(json.dumps({"error": ended[0].error + ended[0].trace, "imported": ended[0].result}))
