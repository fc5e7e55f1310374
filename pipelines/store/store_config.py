"""Where the store is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveFloat

from stages.base import Config


class StoreConfig(Config):
    """The artifact store. None of these values is part of a fingerprint."""

    root: str = Field(".bloomline", min_length=1)  # a directory, or a URI that fsspec knows (s3://bucket/prefix)
    options: Mapping[str, Any] = Field({}, repr=False)  # for fsspec: endpoint_url, key, secret, ...
    state_directory: str | None = None  # local: staging, scratch, digests; of a local root, the root itself
    retry_s: NonNegativeFloat = 300.0  # how long an object store that has answered before may be out of reach
    lease_timeout_s: PositiveFloat = 30.0  # a lease without a heartbeat for this long is taken over

    @property
    def is_local(self) -> bool:
        return "://" not in self.root or self.root.startswith("file://")

    @property
    def local_root(self) -> Path:
        """The directory of a local root, absolute."""
        return Path(self.root.removeprefix("file://")).expanduser().absolute()

    @property
    def state(self) -> Path:
        """The local directory for what is not an artifact. On a cluster it must be on a file system all nodes share."""
        if self.state_directory:
            return Path(self.state_directory).expanduser().absolute()
        if self.is_local:
            return self.local_root
        return Path.home() / ".cache" / "bloomline" / hashlib.sha256(self.root.encode()).hexdigest()[:16]
