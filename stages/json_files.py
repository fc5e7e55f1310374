"""The JSON files of artifacts, read with bounds: the size before the content, the content by a typed model."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from stages.base import ArtifactError

Content = TypeVar("Content", bound=BaseModel)


def read_json(path: Path, model: type[Content], what: str, limit_bytes: int) -> Content:
    """The content of a JSON file as a `model`. `what` names it in errors, with an article: "a corpus's manifest".

    Raises ArtifactError, with the path, if the file cannot be read, is larger than limit_bytes or does not fit.
    """
    try:
        if path.stat().st_size > limit_bytes:
            raise ArtifactError(f"{path} is larger than {limit_bytes} bytes: not {what}")
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise ArtifactError(f"{path} is not {what}: {where}: {first['msg']}") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
