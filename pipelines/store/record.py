"""The record of an artifact: what was made, from what, and by which run. It is written last and validated when read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, NonNegativeInt, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _inside(path: str) -> str:
    """Refuse a path that could lead out of the artifact's directory."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or re.search(r"[\x00-\x1f]", path):
        raise ValueError(f"{path!r} is not a relative path inside the artifact")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: RelativePath
    size: NonNegativeInt  # bytes
    sha256: Sha256


class InputEntry(BaseModel):
    """One artifact that a step read: which fingerprint, and which content it had."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: Sha256
    content: Sha256


class Record(BaseModel):
    """An artifact, and how it was made. `location` is relative to the store's root.

    All values are as `json_values.plain` makes them. In the file, NaN and infinities are the constants that Python's
    `json` writes and reads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    fingerprint: Sha256
    payload: Mapping[str, Any]
    pipeline: str
    step: str
    stage: str
    artifact: str  # name of the artifact's type
    location: RelativePath
    files: tuple[FileEntry, ...]
    config: Mapping[str, Any]  # every field of the stage, defaults included
    inputs: Mapping[str, InputEntry]  # by step name
    metrics: Mapping[str, float]
    headline: str | None
    highlights: Mapping[str, str]
    describe: Mapping[str, Any]  # Artifact.describe()
    created: float  # seconds since the epoch
    seconds: float  # that the step took
    run_id: str
    tracking_run_id: str | None  # the MLflow run of the step
    git_commit: str | None
    git_dirty: bool
    versions: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def content(self) -> str:
        """Digest of the artifact's files, without figures and pages, which are for people."""
        digest = hashlib.sha256()
        for file in sorted(self.files, key=lambda file: file.path):
            if not file.path.startswith(("figures/", "pages/")):
                digest.update(f"{file.sha256} {file.path}\n".encode())
        return digest.hexdigest()
