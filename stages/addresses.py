"""Addresses as they may be shown and stored: without user names, passwords and signatures."""

from __future__ import annotations

import re

HIDDEN = "***"

# Hydra writes the overrides of a sweep with a backslash before each colon and equals sign.
# A password may hold a slash that should have been escaped. The second part finds it, but takes no port for a password,
# and no archive in a chain of addresses (zip://a.txt::s3://bucket/b.zip). Its length is bounded: no text takes long.
_USER_INFO = re.compile(
    r"(?P<scheme>(?<![a-z0-9+.-])[a-z0-9+.-]+)(?P<colon>\\?:)//"
    r"(?P<user>[^\s/?#\"'<>]*(?=@)|[^\s/:@?#\"'<>]+:(?!:|\d+[/?#])[^\s@\"'<>]{0,500}(?=@))@",
    re.IGNORECASE,
)
# USER:PASSWORD@HOST:PORT, whose scheme somebody forgot.
_WITHOUT_SCHEME = re.compile(r"(?<![^\s\"'=(\[])[^\s:/@\"'<>=(\[]+:[^\s:/@\"'<>]+@(?=[\w.-]+\\?:\d)")
_CONTAINER_FIRST = ("abfs", "abfss", "wasb", "wasbs")  # CONTAINER@ACCOUNT, which are no credentials
_SIGNATURE = re.compile(
    r"(?P<name>[?&;](?:[\w.-]*(?:signature|credentials?|token|secret|password|passwd|api[-_]?key|access[-_]?key(?:id)?)"
    r"|sig|key|pwd|auth|jwt|code))(?P<equals>\\?=)[^&#;\s\"'<>]+",
    re.IGNORECASE,
)


def redact_url(text: str) -> str:
    """A text in which every address has *** for its user information and for the signatures in its query.

    What is not part of an address is unchanged.
    """
    if "://" in text or "\\://" in text:
        text = _USER_INFO.sub(_without_user, text)
    if "@" in text:
        text = _WITHOUT_SCHEME.sub(f"{HIDDEN}@", text)
    return _SIGNATURE.sub(rf"\g<name>\g<equals>{HIDDEN}", text) if "=" in text else text


def _without_user(found: re.Match[str]) -> str:
    if found["scheme"].lower() in _CONTAINER_FIRST and ":" not in found["user"]:
        return found[0]
    return f"{found['scheme']}{found['colon']}//{HIDDEN}@"
