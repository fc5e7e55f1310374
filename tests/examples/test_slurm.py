"""The script for Slurm, with stand-ins for Slurm's commands, Ray's and bloomline's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cluster.import_path import ROOT

SCRIPT = ROOT / "examples" / "slurm" / "bloomline.sbatch"
STAND_INS = {
    "scontrol": 'printf "%s\\n" n1 n2 n3',
    "srun": 'echo "srun $*" >> "$LOG"; [[ "$*" != *n1* || -z ${HEAD_FAILS:-} ]] || exit 3; exec sleep 60',
    "ray": '[[ -z ${HEAD_FAILS:-} ]] && grep -q -- "--head" "$LOG"',
    # The end of the run ends what was started: it must not come before the nodes have said that they were.
    "bloomline": 'for _ in {1..400}; do (( $(grep -c ^srun "$LOG") < 3 )) || break; sleep 0.1; done; '
    'echo "bloomline $* token=${#RAY_AUTH_TOKEN}" >> "$LOG"; exit 7',
}


def script(directory: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script's end, and the calls that it made."""
    for name, body in STAND_INS.items():
        (directory / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (directory / name).chmod(0o755)
    (directory / "log").write_text("")
    variables = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "LOG": str(directory / "log")}
    variables |= {"SLURM_CPUS_ON_NODE": "4", "SLURM_JOB_NODELIST": "n[1-3]", **environment}
    done = subprocess.run(
        ["bash", str(SCRIPT), "pipeline=a", "x=b c"], env=variables, capture_output=True, text=True, timeout=50
    )
    return done, (directory / "log").read_text().splitlines()


def test_ray_is_brought_up_on_every_node_and_ends_with_the_run(tmp_path: Path) -> None:
    done, calls = script(tmp_path)
    assert done.returncode == 7, done.stderr
    assert "bloomline run pipeline=a x=b c cluster=remote cluster.address=n1:6379 token=64" in calls
    started = [call for call in calls if call.startswith("srun ")]
    assert len(started) == 3
    assert sum("--head" in call for call in started) == 1
    assert {node for node in ("n2", "n3") for call in started if f"--nodelist={node} " in call} == {"n2", "n3"}
    assert all("--num-cpus=4" in call for call in started)


def test_a_head_that_ends_is_said(tmp_path: Path) -> None:
    done, calls = script(tmp_path, HEAD_FAILS="yes")
    assert done.returncode == 1
    assert "Ray's head on n1 has ended" in done.stderr
    assert not any(call.startswith("bloomline") for call in calls)
