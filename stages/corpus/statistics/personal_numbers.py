"""Finds telephone numbers and bank accounts (IBAN), which ROOTS left out because of wrong matches.

Both are checked by a library that knows the numbers of each country: phonenumbers (Google's libphonenumber) and
python-stdnum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?>(?:[ -]?[A-Z0-9]{4}){2,7})(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
_PHONE_SIGN = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9]){6}")  # a cheap test


def accounts(text: str) -> Iterator[tuple[int, int]]:
    """The ranges of valid IBANs."""
    from stdnum import iban

    for found in _IBAN.finditer(text):
        end = found.end()
        while not iban.is_valid(text[found.start() : end]):  # words in capitals may follow
            end = max(text.rfind(sign, found.start(), end) for sign in " -")
            if end < 0:
                break
        else:
            yield found.start(), end


def telephone_numbers(text: str, region: str) -> Iterator[tuple[int, int]]:
    """The ranges of valid numbers: those with a country code, and those of `region` (ISO 3166) if it is not empty."""
    if not _PHONE_SIGN.search(text):
        return
    from phonenumbers import Leniency, PhoneNumberMatcher

    for found in PhoneNumberMatcher(text, region or None, leniency=Leniency.VALID, max_tries=65_535):
        yield found.start, found.end
