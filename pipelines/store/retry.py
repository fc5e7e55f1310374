"""Which errors of a remote file system pass by themselves."""

from __future__ import annotations

import errno

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0  # between two attempts; each pause is twice as long as the one before
PERMANENT = (PermissionError, IsADirectoryError, ImportError, ValueError, TypeError, LookupError, AttributeError)
PERMANENT_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # of the local disk
TEMPORARY_STATUS = {408, 429}  # and those from 500 on
# By name, because the libraries that define them (botocore, aiohttp) are imported only if the store needs them. Those
# of Python are OSErrors.
TEMPORARY = {"ConnectionError", "HTTPClientError", "ClientConnectionError", "ClientPayloadError"}


def is_temporary(error: BaseException) -> bool:
    """Whether the same call may succeed later: the server was out of reach, or it answered that it is overloaded."""
    status = _status(error) or _status(error.__cause__)
    if status is not None:
        return status >= 500 or status in TEMPORARY_STATUS
    if isinstance(error, PERMANENT) or getattr(error, "errno", None) in PERMANENT_NUMBERS:
        return False
    return isinstance(error, OSError) or any(kind.__name__ in TEMPORARY for kind in type(error).__mro__)


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of the answer that an error stands for, if there was an answer."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's form
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    for name in ("status", "code"):  # aiohttp's and gcsfs's
        if isinstance(found := getattr(error, name, None), int):
            return found
    return None
