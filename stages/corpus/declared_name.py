"""The name by which a configuration chooses an operation, a reader or a deduplication rule."""

from __future__ import annotations

from pydantic import BaseModel


def check_declared_name(kind: type[BaseModel], key: str) -> None:
    """Raises ValueError if a class does not declare its name, as `operation: Literal["words"] = "words"` does."""
    if kind.model_fields[key].is_required():
        raise ValueError(
            f"{kind.__module__}:{kind.__qualname__} declares no name; add a field such as "
            f'`{key}: Literal["my_name"] = "my_name"` to the class'
        )
