"""Addresses as they may be shown and stored: without user names, passwords and signatures."""

from __future__ import annotations

import re

HIDDEN = "***"

# A password may hold a slash that should have been escaped. The second part finds it, but takes no port for a password,
# and no archive in a chain of addresses (zip://a.txt::s3://bucket/b.zip).
_USER_INFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<user>[^\s/?#\"'<>]*(?=@)|[^\s/:@?#\"'<>]+:(?!:|\d+[/?#])[^\s@\"'<>]*(?=@))@",
    re.IGNORECASE,
)
_CONTAINER_FIRST = ("abfs", "abfss", "wasb", "wasbs")  # CONTAINER@ACCOUNT, which are no credentials
_SIGNATURE = re.compile(
    r"(?P<name>[?&;](?:[\w.-]*(?:signature|credentials?|token|secret|password|passwd|api[-_]?key|access[-_]?key(?:id)?)"
    r"|sig|key|pwd|auth|jwt|code))=[^&#;\s\"'<>]+",
    re.IGNORECASE,
)


def redact_url(text: str) -> str:
    """A text in which every address has *** for its user information and for the signatures in its query.

    What is not part of an address is unchanged.
    """
    if "://" in text:
        text = _USER_INFO.sub(_without_user, text)
    return _SIGNATURE.sub(rf"\g<name>={HIDDEN}", text) if "=" in text else text


def _without_user(found: re.Match[str]) -> str:
    if found["scheme"].lower() in _CONTAINER_FIRST and ":" not in found["user"]:
        return found[0]
    return f"{found['scheme']}://{HIDDEN}@"
