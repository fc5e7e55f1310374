"""Signatures of records: HMAC-SHA256 with a key that only the users of a store know.

A signature is the last member of the JSON object in the file of a record. It covers every other byte of the file as it
is written, and the name of the file, so that the record of one fingerprint cannot take the place of another. Since the
digests of an artifact's files are in its record, they are covered too.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

from pydantic import SecretStr

_SIGNATURE = re.compile(rb',\n "signature": "hmac-sha256:([0-9a-f]{64})"\n}\Z')
_END = b"\n}"


def sign(content: bytes, place: str, key: SecretStr) -> bytes:
    """The content of a record, JSON with an indent of one, with its signature. `place`: the path in the store."""
    signature = _signature(content, place, key)
    return content.removesuffix(_END) + b',\n "signature": "hmac-sha256:%s"' % signature.encode() + _END


def without_signature(content: bytes, place: str, keys: Sequence[SecretStr]) -> bytes:
    """The content as it was before it was signed.

    Raises ValueError if it is not signed with one of the keys. Without keys, signatures are not checked.
    """
    found = _SIGNATURE.search(content)
    unsigned = content[: found.start()] + _END if found else content
    if keys and not found:
        raise ValueError("it is not signed, and store.signing_key is set")
    if keys and found and not any(hmac.compare_digest(found[1].decode(), _signature(unsigned, place, k)) for k in keys):
        raise ValueError("its signature is not of store.signing_key: it was changed, or signed with another key")
    return unsigned


def _signature(content: bytes, place: str, key: SecretStr) -> str:
    message = b"bloomline record\0" + place.encode() + b"\0" + content
    return hmac.digest(key.get_secret_value().encode(), message, "sha256").hex()
