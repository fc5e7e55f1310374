"""Where the store is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, SecretStr, field_validator, model_validator

from stages.base import Config

SHORTEST_KEY = 32  # characters
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs")  # schemes whose addresses begin with a bucket


def _long_enough(key: SecretStr) -> SecretStr:
    length = len(key.get_secret_value())
    if length < SHORTEST_KEY:
        # An empty one is refused too: a secret that could not be read must not switch the verification off.
        is_empty = ", and this one is empty: unset the variable that it comes from to sign nothing"
        raise ValueError(
            f"a key of at least {SHORTEST_KEY} characters, as `openssl rand -hex 32` makes one"
            f"{'' if length else is_empty}"
        )
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

    @field_validator("root")
    @classmethod
    def _names_a_bucket(cls, root: str) -> str:
        scheme, separator, rest = root.partition("://")
        if separator and scheme in OBJECT_STORES and not rest.split("/", 1)[0]:
            raise ValueError(f"an address with a bucket, such as {scheme}://BUCKET/PREFIX")
        return root

    @model_validator(mode="after")
    def _previous_key_has_a_successor(self) -> Self:
        if self.previous_signing_key and not self.signing_key:  # else nothing would be verified
            raise ValueError("previous_signing_key without signing_key: expected both, or signing_key alone")
        return self

    @property
    def accepted_keys(self) -> tuple[SecretStr, ...]:
        """The keys with which a record may be signed; empty if records need not be signed."""
        keys = (self.signing_key, self.previous_signing_key) if self.signing_key else ()
        return tuple(key for key in keys if key)

    def for_steps(self) -> Self:
        """For the processes of steps: with absolute paths, and without keys, because the driver verifies records."""
        root = str(self.local_root) if self.is_local else self.root
        keys = {"signing_key": None, "previous_signing_key": None}
        return self.model_copy(update={"root": root, "state_directory": str(self.state), **keys})

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
