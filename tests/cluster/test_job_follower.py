"""What is said at the end of a job that was followed."""

from __future__ import annotations

import io
import signal
from typing import Any

import pytest

from cluster.job_follower import STOPPED_CODE, Followed


class Cluster:
    """A cluster that knows one job, which has ended."""

    def __init__(self, **details: Any) -> None:
        self.details = {"message": "", **details}

    def _do_request(self, method: str, path: str, timeout: float) -> Cluster:
        assert (method, path) == ("GET", "/api/jobs/job-1")
        return self

    status_code = 200

    def raise_for_status(self) -> None: ...

    def json(self) -> dict[str, Any]:
        return self.details

    async def tail_job_logs(self, job: str) -> Any:
        yield "step a is running\n"


def follow(**details: Any) -> tuple[int, list[str]]:
    out = io.StringIO()
    cluster: Any = Cluster(**details)
    followed = Followed(cluster, "job-1", out, input, 1.0, "http://head:8265")
    return followed.follow(), out.getvalue().splitlines()


def test_a_killed_driver_is_named_with_its_signal_and_the_command_that_continues_the_job() -> None:
    message = (
        "Job entrypoint command failed with exit code -9, last available logs (truncated to 20,000 chars):\nstep a"
    )
    code, lines = follow(status="FAILED", driver_exit_code=-9, message=message)
    assert code == 128 + signal.SIGKILL
    assert lines == [
        "step a is running",
        "job-1: Job entrypoint command failed with exit code -9",
        "Its driver was killed by SIGKILL. Continue it: "
        "bloomline jobs retry job-1 cluster=remote cluster.address=http://head:8265",
    ]


@pytest.mark.parametrize(
    ("details", "code", "said"),
    [
        ({"status": "SUCCEEDED"}, 0, []),
        ({"status": "FAILED", "driver_exit_code": 3, "message": "exit code 3"}, 3, ["job-1: exit code 3"]),
        ({"status": "FAILED"}, 1, ["job-1: FAILED"]),
        ({"status": "STOPPED", "message": "stopped by ana"}, STOPPED_CODE, ["job-1: stopped by ana"]),
    ],
)
def test_every_other_end_has_its_code(details: dict[str, Any], code: int, said: list[str]) -> None:
    assert follow(**details) == (code, ["step a is running", *said])
