"""The address of MLflow, and how long to wait for it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.redaction import redact_url
from pipelines.tracking import database
from stages.base import Config


class TrackingConfig(Config):
    """The tracking. None of these values is part of a fingerprint."""

    kind: Literal["local", "server"] = "local"  # local: a sqlite database under the root
    uri: str | None = None  # of the server: http(s)://host[:port][/path]
    # local: whether a run of a few seconds, or one that ends with much still to be sent, leaves the database to a
    # process that outlives it. To import mlflow takes longer than the first, and to send the steps of the second longer
    # than they do.
    in_background: bool = False
    experiment: str | None = Field(None, min_length=1, max_length=500)  # default: the pipeline's name
    system_metrics_interval_s: PositiveFloat = 10.0
    request_timeout_s: PositiveInt = 10  # whole seconds, because MLflow's client accepts no fractions
    close_timeout_s: PositiveFloat = 60.0  # how long the end of a run waits for a server that responds

    @model_validator(mode="after")
    def _uri_fits_kind(self) -> Self:
        if self.kind == "local":
            if self.uri is not None:
                raise ValueError("uri is for `kind: server`; a local database is always in the root directory")
            return self
        parts = urlsplit(self.uri or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"kind: server needs uri: http(s)://host[:port], not {redact_url(self.uri or '')!r}")
        if parts.username or parts.password:
            raise ValueError(
                "uri must not contain credentials: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return self

    def tracking_uri(self, root: Path) -> str:
        """The address to give to MLflow. Raises OSError."""
        return self.uri if self.uri is not None else database.address(root / "mlflow.db")

    def shown(self, root: Path) -> str:
        """Which MLflow this is, for messages."""
        return redact_url(self.uri) if self.uri is not None else str(root.absolute() / "mlflow.db")

    @property
    def target(self) -> str:
        """Which MLflow this is, independent of where the store is: "local", or the server's address."""
        if self.uri is None:
            return self.kind
        parts = urlsplit(self.uri)
        address = parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower(), path=parts.path.rstrip("/"))
        return redact_url(address.geturl())

    def artifact_location(self, root: Path, experiment: str) -> str | None:
        """Where a new experiment's artifacts go; None leaves it to the server."""
        if self.kind == "server":
            return None
        folder = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in experiment)
        return (root.absolute() / database.ARTIFACTS / folder).as_uri()
