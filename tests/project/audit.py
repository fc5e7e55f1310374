"""Compares the locked dependencies with published advisories: `python -m tests.project.audit`, part of `make lint`.

The exit code is 1 if a version has a known vulnerability. Where advisories cannot be reached, one line says so and the
exit code is 0, so that work without a network can continue.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from tests.project.lock import LOCK

ADVISORIES = "osv"  # github.com/google/osv.dev; PyPI's own interface lacks them behind many mirrors
OPTIONS = f"--disable-pip --vulnerability-service {ADVISORIES} --progress-spinner off --timeout 10"
COMMAND = (sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), *OPTIONS.split())
UNREACHABLE = ("ServiceError", "ConnectionError", "Connection refused", "Could not connect", "timed out", "Max retries")


def audit(command: Sequence[str] = COMMAND) -> int:
    """Run pip-audit; returns the exit code."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and any(word in done.stderr for word in UNREACHABLE):
        print(f"Advisories were not checked: {ADVISORIES} cannot be reached from here.")
        return 0
    print((done.stdout + done.stderr).strip())
    return done.returncode


if __name__ == "__main__":
    sys.exit(audit())
