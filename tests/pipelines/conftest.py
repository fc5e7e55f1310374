"""Fixtures of the engine's tests: the demo stages in place of the real ones, and a store in a temporary directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from pipelines.store import Store, StoreConfig
from tests.pipelines import demo
from tests.pipelines.support import s3_config


@pytest.fixture(scope="session", autouse=True)
def _mlflow_is_imported() -> None:
    """A run of this process then sends to MLflow itself, however short it is."""
    import mlflow  # noqa: F401


@pytest.fixture
def demo_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry holds the demo stages only."""
    import stages.registry

    monkeypatch.setattr(stages.registry, "STAGES", demo.STAGES)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StoreConfig(root=str(tmp_path / "store")))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of a local S3-compatible server."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("s3fs")
    thread = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("werkzeug"), "level", logging.ERROR)  # it logs in the process of the steps
        thread.start()
        host, port = thread.get_host_and_port()
        # The servers of one process share their buckets.
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
        yield f"http://{host}:{port}"
        thread.stop()


@pytest.fixture
def s3_store(s3: str, tmp_path: Path) -> Store:
    """A store in its own bucket."""
    return Store(s3_config(s3, f"b{abs(hash(str(tmp_path)))}", tmp_path / "state"))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, to be copied: creating the tables takes seconds."""
    from pipelines.tracking.mlflow_connection import Connection
    from pipelines.tracking.tracking_config import TrackingConfig

    root = tmp_path_factory.mktemp("mlflow")
    Connection(TrackingConfig(), root)
    return root / "mlflow.db"


@pytest.fixture(scope="module")
def eager_tracking() -> Iterator[None]:
    """Tracking sends without delay and retries soon."""
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("FIRST_BACKOFF_S", 0.05), ("LONGEST_BACKOFF_S", 0.2), ("LINGER_S", 0.05)):
            patch.setattr(f"pipelines.tracking.sender.{name}", seconds)
        patch.setattr("pipelines.tracking.sender.ARTIFACT_WAIT_S", 0.01)
        patch.setattr("pipelines.tracking.tracker.FIRST_SAMPLE_S", 0.05)
        yield
