"""Where the project's own files are, and the command line as a plain installation has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_WITHOUT_EXTRAS = """
import os, sys
from cluster.extras import modules_by_extra
extras = modules_by_extra()
for name in set().union(*extras.values()) - extras[""]:
    sys.modules[name] = None  # an import of it raises ModuleNotFoundError
from pipelines.cli import run
code = run(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
"""


def plain_installation(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a folder where the modules of all extras are missing."""
    with plain_process(folder, *arguments) as process:
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def plain_process(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The same as a process that runs."""
    command = [sys.executable, "-c", _WITHOUT_EXTRAS, *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)
