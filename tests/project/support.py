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
    command = [sys.executable, "-c", _WITHOUT_EXTRAS, *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
