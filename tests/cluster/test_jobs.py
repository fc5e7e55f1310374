"""What is said where a cluster does not take a job, and of what a job is given."""

from __future__ import annotations

import socket
import threading

import pytest

from cluster.base import ClusterError
from cluster.jobs import forwarding, job_client, rejections


def test_a_port_that_is_not_a_dashboards_is_said_to_be_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        with (
            pytest.raises(
                ClusterError, match=r"did not accept the job: .*address of a Ray dashboard, http://HOST:8265"
            ),
            rejections(url, "did not accept the job"),
        ):
            job_client(url)


def test_variables_that_are_not_set_here_are_named() -> None:
    said = forwarding(["AWS_*", "MLFLOW_TOKEN", "NOSUCH_*"], {"AWS_KEY": "1", "AWS_ID": "2"})
    assert said == "Forwarding environment variables: AWS_KEY, AWS_ID. Not set here: MLFLOW_TOKEN, NOSUCH_*."
    assert forwarding(["A"], {}) == "Forwarding environment variables: none. Not set here: A."
    assert forwarding(["A"], {"A": "1"}) == "Forwarding environment variables: A."
