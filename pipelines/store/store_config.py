"""Where the store is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, SecretStr

from stages.base import Config

SHORTEST_KEY = 32  # characters


def _long_enough(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < SHORTEST_KEY:
        raise ValueError(f"a key of at least {SHORTEST_KEY} characters, as `openssl rand -hex 32` makes one")
    return key


SigningKey = Annotated[SecretStr, AfterValidator(_long_enough)]


class StoreConfig(Config):
    """The artifact store. None of these values is part of a fingerprint."""

    root: str = Field(".bloomline", min_length=1)  # a directory, or a URI that fsspec knows (s3://bucket/prefix)
    options: Mapping[str, Any] = Field({}, repr=False)  # for fsspec: endpoint_url, key, secret, ...
    state_directory: str | None = None  # local: staging, scratch, digests; of a local root, the root itself
    retry_s: NonNegativeFloat = 300.0  # how long an object store that has answered before may be out of reach
    lease_timeout_s: PositiveFloat = 30.0  # a lease without a heartbeat for this long is taken over
    signing_key: SigningKey | None = None  # signs records; those without its signature are damaged
    previous_signing_key: SigningKey | None = None  # whose signatures are accepted too, while a key is replaced

    @property
    def accepted_keys(self) -> tuple[SecretStr, ...]:
        """The keys with which a record may be signed; empty if records need not be signed."""
        keys = (self.signing_key, self.previous_signing_key) if self.signing_key else ()
        return tuple(key for key in keys if key)

    def without_keys(self) -> Self:
        """For processes that read no records: what they open was verified by the driver."""
        return self.model_copy(update={"signing_key": None, "previous_signing_key": None})

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
