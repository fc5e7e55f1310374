"""What the driver of a submitted job knows about its job."""

from __future__ import annotations

import json
import os

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the driver of a submitted job, with the job's metadata
ENTRYPOINT_CPUS = "entrypoint_cpus"  # in the metadata: the CPUs that are reserved for the driver on its node


def in_submitted_job() -> bool:
    """Whether this process is the driver of a submitted job. The job's processes have copies of the code already."""
    return JOB_CONFIG in os.environ


def reserved_cpus() -> float:
    """The CPUs that are reserved for this process, which is 0 unless it is the driver of a submitted job."""
    job = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    return float(job.get("metadata", {}).get(ENTRYPOINT_CPUS, 0))
