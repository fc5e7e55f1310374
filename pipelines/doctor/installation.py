"""Checks this machine: Python, the modules of each extra, torch and its devices, space, memory and limits."""

from __future__ import annotations

import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster import machine
from cluster.config import ClusterConfig, LocalCluster
from cluster.extras import CONTRIBUTORS, PACKAGE, modules_by_extra
from cluster.import_path import python_path
from pipelines.doctor.finding import Finding, State
from pipelines.formatting import size
from stages.child_environment import child_environment

IMPORT_TIMEOUT_S = 180.0  # of all modules of an extra, on a slow disk
OPEN_FILES = 4096  # Ray holds hundreds for each node
FREE_BYTES = 5 << 30  # a quickstart with its store takes less than one
NO_SPACE_BYTES = 200 << 20
SHARED_MEMORY = Path("/dev/shm")

# What the child runs: it imports modules and says of each, in a line of JSON, how that went. A module with a broken
# binary may end it.
IMPORTS = """
import json, sys
from importlib import import_module
from importlib.metadata import packages_distributions, version
out = sys.stdout
sys.stdout = sys.stderr
owners = packages_distributions()
for name in sys.argv[1:]:
    said = {"name": name}
    try:
        module = import_module(name)
        owner = (owners.get(name.partition(".")[0]) or [""])[0]
        said["version"] = version(owner) if owner else ""
        if name == "torch":
            gpus = [module.cuda.get_device_name(place) for place in range(module.cuda.device_count())]
            said["torch"] = {"cuda": module.version.cuda, "gpus": gpus, "threads": module.get_num_threads()}
    except ModuleNotFoundError as error:
        said["missing"] = error.name
    except BaseException as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(said), file=out, flush=True)
"""


def check_python() -> Iterator[Finding]:
    found = f"Python {platform.python_version()}, bloomline {version(PACKAGE)}, {platform.platform()}"
    yield Finding("ok", found)


def check_extras() -> Iterator[Finding]:
    """A line for each extra: one that is not installed is a note, a broken one fails. Modules are named once."""
    extras = {
        name: sorted(modules - {PACKAGE}) for name, modules in modules_by_extra().items() if name not in CONTRIBUTORS
    }
    extras.pop("all", None)
    known: dict[str, dict[str, Any]] = {}
    for extra in sorted(extras, key=lambda extra: (len(extras[extra]), extra)):
        wanted = [name for name in extras[extra] if name not in known]
        known |= import_all(wanted)
        yield from _of_extra(extra, [known[name] for name in extras[extra]], set(wanted))
        if "torch" in wanted and "torch" in known["torch"]:
            yield _torch(known["torch"])


def import_all(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each module, how its import went in another process: see IMPORTS."""
    found: dict[str, dict[str, Any]] = {}
    while rest := [name for name in names if name not in found]:
        ended = ""
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", IMPORTS, *rest],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=IMPORT_TIMEOUT_S,
                env=child_environment({"PYTHONPATH": python_path()}),
                check=False,
            )
            output, code = done.stdout, done.returncode
            ended = f"it ended Python with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
        except subprocess.TimeoutExpired as error:
            output, ended = error.stdout or b"", f"it takes more than {IMPORT_TIMEOUT_S:g} s"
        said = [json.loads(line) for line in output.splitlines() if line.endswith(b"}")]
        found |= {one["name"]: one for one in said}
        if len(said) < len(rest):
            found[rest[len(said)]] = {"name": rest[len(said)], "error": ended}
    return found


def _of_extra(extra: str, modules: Sequence[Mapping[str, Any]], new: Collection[str]) -> Iterator[Finding]:
    """What is said of an extra; its modules that are not `new` were named with a smaller one."""
    title = f"extra {extra}" if extra else "plain installation"
    install = f"pip install '{PACKAGE}[{extra}]'" if extra else f"pip install {PACKAGE}"
    for module in modules:
        if "error" in module:
            remedy = f"Install it again: pip install --force-reinstall {module['name']}"
            yield Finding("failed", f"{title}: {module['name']} cannot be imported: {module['error'][:200]}", remedy)
    if missing := [module["name"] for module in modules if "missing" in module]:
        state: State = "warning" if extra else "failed"
        remedy = f"If you need it: {install}" if extra else install
        yield Finding(state, f"{title}: not installed: {', '.join(missing)}", remedy)
        return
    if all("version" in module for module in modules):
        named = [f"{module['name']} {module['version']}".strip() for module in modules if module["name"] in new]
        others = ["what is named above"] if len(named) < len(modules) else []
        yield Finding("ok", f"{title}: {', '.join([*named, *others])}")


def _torch(module: Mapping[str, Any]) -> Finding:
    facts = module["torch"]
    build = f"CUDA {facts['cuda']}" if facts["cuda"] else "CPU only"
    devices = ", ".join(facts["gpus"]) or f"no GPU, {facts['threads']} threads"
    text = f"torch {module['version']}, built for {build}: {devices}"
    if machine.gpus() and not facts["gpus"]:
        remedy = "Install a build of torch for the driver of this machine: see https://pytorch.org/get-started"
        return Finding("warning", f"{text}, although this machine has a GPU", remedy)
    return Finding("ok", text)


def check_space(directories: Mapping[str, Path]) -> Iterator[Finding]:
    """The free space of directories, by what they are for. Those that do not exist yet are on the disk of a parent."""
    for name, wanted in {**directories, "temporary files": Path(tempfile.gettempdir())}.items():
        place = next((one for one in (wanted, *wanted.parents) if one.is_dir()), Path("/"))
        free = shutil.disk_usage(place).free
        text = f"disk for {name} ({wanted}): {size(free)} free"
        if free < FREE_BYTES:
            state: State = "failed" if free < NO_SPACE_BYTES else "warning"
            yield Finding(state, text, f"Free {size(FREE_BYTES)}, or choose another place (store.root, TMPDIR).")
        else:
            yield Finding("ok", text)


def check_machine(cluster: ClusterConfig) -> Iterator[Finding]:
    yield Finding("ok", f"{machine.cpus()} CPUs, {machine.gpus()} GPUs, {size(machine.memory_bytes())} of memory")
    if SHARED_MEMORY.is_dir():
        shared = shutil.disk_usage(SHARED_MEMORY).free
        needed = cluster.object_store_bytes if isinstance(cluster, LocalCluster) else LocalCluster().object_store_bytes
        text = f"shared memory ({SHARED_MEMORY}): {size(shared)} free"
        if shared < needed:
            remedy = f"Ray takes {size(needed)}: start the container with a larger one, docker run --shm-size=1g"
            yield Finding("warning", text, remedy)
        else:
            yield Finding("ok", text)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"open files: {'no limit' if soft == resource.RLIM_INFINITY else f'at most {soft:,}'}"
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        allowed = hard == resource.RLIM_INFINITY or hard >= OPEN_FILES
        remedy = f"ulimit -n {OPEN_FILES}" if allowed else "Ask for a higher limit in /etc/security/limits.conf."
        yield Finding("warning", text, remedy)
    else:
        yield Finding("ok", text)
