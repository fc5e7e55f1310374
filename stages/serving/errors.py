"""Errors of the HTTP application, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NULLABLE = {"type": ["string", "null"]}
ERROR_SCHEMA: Mapping[str, Any] = {  # JSON schema of `error_body`
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _NULLABLE,
                "code": _NULLABLE,
            },
        }
    },
}


class BadRequestError(Exception):
    """A refused request: its HTTP status, the reason, the parameter at fault, and OpenAI's error code, if any."""

    def __init__(
        self, message: str, *, status: int = 400, parameter: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.parameter, self.code = message, status, parameter, code


class GenerationFailedError(Exception):
    """A generation ended with an error or was cancelled."""


class DeadlineError(Exception):
    """A request did not end within its time."""


def error_body(message: str, status: int, parameter: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an answer with an HTTP error status."""
    kind = "server_error" if status >= 500 else "overloaded_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}
