"""Finds personal data and credentials: the four kinds that ROOTS redacted (arXiv 2303.03915, section 3.2), and two.

    EMAIL       local@domain, with or without a top-level domain; with the sign written in another way
    USER        @name
    IP_ADDRESS  valid addresses of version 4 and 6; not loopback, netmasks, or version numbers
    KEY         credentials: known formats, letters and digits that alternate four times, cards, product keys
    PHONE, IBAN only on demand: telephone numbers and bank accounts, see `personal_numbers.py`

The patterns are narrower than ROOTS' where those took dates, ISBNs, phone numbers and hyphenated words for keys. Each
runs in linear time (repetitions are possessive or bounded), and only where a cheap test found a sign of it. Repeated
groups are written as atomic groups, since possessive ones lose matches before Python 3.11.5 (gh-106052).
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from stages.corpus.statistics.personal_numbers import accounts, telephone_numbers
from stages.corpus.statistics.written_addresses import UNSPACED, uuencoded, written_addresses

Kind = Literal["EMAIL", "USER", "IP_ADDRESS", "KEY", "PHONE", "IBAN"]
KINDS: tuple[Kind, ...] = ("EMAIL", "IP_ADDRESS", "KEY", "USER")
PRECEDENCE: tuple[Kind, ...] = ("EMAIL", "IBAN", "IP_ADDRESS", "PHONE", "KEY", "USER")  # of overlapping matches

_W = rf"[^\W{UNSPACED}]"
_LOCAL = rf"[^\W{UNSPACED}]|[.!#$%&*+/=?^~'-]"
_DOMAIN = rf"@(?:\[(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}\]|{_W}++(?>(?:-++{_W}++)*)(?>(?:\.{_W}++(?>(?:-++{_W}++)*))*))"
_EMAIL = re.compile(rf'(?<!{_W})(?:"[^"\s@]{{1,64}}"|(?:{_W}|[.+-])(?>(?:{_LOCAL}){{0,255}}))(?>(?:{_DOMAIN})+)')
_USER = re.compile(rf"(?<![\w@.])(?<!\w-)@{_W}(?>(?:{_W}|[.-](?={_W})){{2,}})")
_WITH_AT = re.compile(r"(?<!\S)[^\s@]*+@\S*+")  # a run without spaces that contains "@"

_V4 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_IPV4 = re.compile(r"[0-9](?<![\w.:][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w]|\.[0-9])")
_IPV6 = re.compile(
    r"(?<![\w.:])(?=[0-9A-Fa-f:]*[0-9])(?:[0-9A-Fa-f]{0,4}:){2,7}"
    rf"(?:{_V4}|[0-9A-Fa-f]{{0,4}})(?:%[0-9A-Za-z]++)?(?![\w:])"
)
_TWO_COLONS = re.compile(":[0-9A-Fa-f]{0,4}:")
_VERSION_BEFORE = re.compile(
    r"(?i:(?:\b(?:v|ver|versions?|release|rev|revision|build|section|chapter|firmware)|§|[=~<>]=|\^)[ .:]{0,2})$"
)
_CONTEXT = 16  # characters before an address that are searched for "version" and the like

_KNOWN_KEYS = tuple(
    (sign, re.compile(pattern))
    for sign, pattern in (
        (
            "PRIVATE KEY",
            r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----(?>(?:[^-]|-(?!----)){0,20000})"
            r"-----END (?:[A-Z]+ ){0,3}PRIVATE KEY-----",
        ),
        ("A", r"A(?<!\wA)(?:KIA|SIA|ROA|IDA)[A-Z0-9]{16}(?!\w)"),  # AWS
        ("gh", r"gh(?<!\wgh)[pousr]_\w{36,255}+"),
        ("github_pat_", r"github_pat_\w{22,255}+"),
        ("sk-", r"sk-(?<!\wsk-)[A-Za-z0-9_-]{20,255}+"),  # model services
        ("k_", r"(?<!\w)[spr]k_(?:live|test)_[A-Za-z0-9]{16,255}+"),  # payment services
        ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,255}+"),  # Slack
        ("hf_", r"hf_(?<!\whf_)[A-Za-z0-9]{34}(?!\w)"),  # model and package hubs, until npm
        ("pypi-", r"pypi-[A-Za-z0-9_-]{50,255}+"),
        ("npm_", r"npm_(?<!\wnpm_)[A-Za-z0-9]{36}(?!\w)"),
        ("glpat-", r"glpat-[A-Za-z0-9_-]{20,255}+"),  # GitLab
        ("SG.", r"SG\.(?<!\wSG\.)[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?!\w)"),  # mail services
        ("ya29.", r"ya29\.[A-Za-z0-9_-]{20,1024}+"),  # Google, short-lived
        ("AIza", r"AIza[A-Za-z0-9_-]{35}(?!\w)"),  # Google
        ("eyJ", r"eyJ[A-Za-z0-9_-]{8,4096}+\.[A-Za-z0-9_-]{8,8192}+\.[A-Za-z0-9_-]{8,1024}+"),  # JSON Web Token
    )
)
# Signs that may be part of a key; only changes between letters and digits count.
_SIGN = r"[/+=:_\-\u2010-\u2015]"
_DIGITS = rf"[0-9](?>(?:[0-9]|{_SIGN}){{0,255}})"
_CHANGE = rf"[A-Za-z]++{_SIGN}{{0,8}}+{_DIGITS}"
_MIXED = re.compile(
    rf"(?<![\w/+=:.\-\u2010-\u2015])(?:{_SIGN}{{0,8}}+(?>(?:{_CHANGE}){{4,64}})|{_DIGITS}(?>(?:{_CHANGE}){{3,64}}))[A-Za-z]*+(?!\w)"
)
_ESCAPE = re.compile("=[0-9A-F]{2}")
_DIGIT_THEN_LETTER = re.compile(rf"[0-9]{_SIGN}{{0,8}}[A-Za-z]")
_PRODUCT = re.compile(r"(?<![\w-])(?=[A-Z-]*+[0-9])(?=[0-9-]*+[A-Z])[A-Z0-9]{4,8}(?>(?:-[A-Z0-9]{4,8}){2,7})(?![\w-])")
_BETWEEN_HYPHENS = re.compile("-[A-Z0-9]{4,8}-")
_SPACE = re.compile(r"\s")
_REACH = 1024  # characters before a sign in which the start of a key is searched
_CARD = re.compile(r"[0-9](?<![\w.,-][0-9])(?>(?:[ -]?[0-9]){12,18})(?![\w-]|[.,][0-9])")


# Full-width forms of the ASCII in addresses and keys. Each replaces one character, so positions do not change.
_FULL_WIDTH = re.compile("[\uff0d\uff0e\uff10-\uff19\uff20-\uff3a\uff3f\uff41-\uff5a]")


class Found(NamedTuple):
    """A match: its kind, and its range of characters in the text."""

    kind: Kind
    start: int
    end: int


def find(
    text: str, kinds: tuple[Kind, ...] = KINDS, public_addresses_only: bool = False, phone_region: str = ""
) -> list[Found]:
    """All matches of the given kinds by position, without overlaps.

    phone_region: the country (ISO 3166) of telephone numbers without a country code; empty: these are not found.
    """
    if not text.isascii():
        text = _FULL_WIDTH.sub(lambda sign: chr(ord(sign[0]) - 0xFEE0), text)
    finders: dict[Kind, Callable[[], Iterator[tuple[int, int]]]] = {
        "EMAIL": lambda: _emails(text),
        "IBAN": lambda: accounts(text),
        "IP_ADDRESS": lambda: _addresses(text, public_addresses_only),
        "PHONE": lambda: telephone_numbers(text, phone_region),
        "KEY": lambda: _keys(text),
        "USER": lambda: _where_at(_USER, text),
    }
    taken: list[Found] = []
    for kind in PRECEDENCE:
        if kind in kinds:
            taken = _merged(taken, [Found(kind, start, end) for start, end in finders[kind]()])
    return _outside(taken, uuencoded(text)) if taken else taken


def _outside(found: list[Found], ranges: list[tuple[int, int]]) -> list[Found]:
    """Those of `found` that do not begin in one of `ranges`, both by position."""
    starts = [start for start, _ in ranges]
    return [one for one in found if not (place := bisect_right(starts, one.start)) or ranges[place - 1][1] <= one.start]


def _merged(taken: list[Found], spans: list[Found]) -> list[Found]:
    """`taken`, and those of `spans` that do not overlap it, by position."""
    if not taken or not spans:
        return taken or spans
    merged, place = [], 0
    for span in spans:
        while place < len(taken) and taken[place].end <= span.start:
            merged.append(taken[place])
            place += 1
        if place == len(taken) or span.end <= taken[place].start:
            merged.append(span)
    return merged + taken[place:]


def _emails(text: str) -> Iterator[tuple[int, int]]:
    signed = [Found("EMAIL", start, end) for start, end in _where_at(_EMAIL, text)]
    written = [Found("EMAIL", start, end) for start, end in written_addresses(text)]
    return ((one.start, one.end) for one in _merged(signed, written))


def _where_at(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        for chunk in _WITH_AT.finditer(text):
            yield from (match.span() for match in pattern.finditer(text, *chunk.span()))


def _addresses(text: str, public_only: bool) -> Iterator[tuple[int, int]]:
    patterns = (_IPV4, _IPV6) if _TWO_COLONS.search(text) else (_IPV4,)
    found = [match for pattern in patterns for match in pattern.finditer(text)]
    end = 0
    for match in sorted(found, key=re.Match.start):
        if match.start() >= end and _is_address(match.group(), public_only) and not _is_version(text, match.start()):
            end = match.end()
            yield match.span()


def _is_address(written: str, public_only: bool) -> bool:
    try:
        address = ipaddress.ip_address(written.split("%")[0])
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        first = int(address) >> 24
        named = 0 < first < 240  # outside are netmasks, broadcasts and "this network"
    else:
        named = not address.is_reserved or address.ipv4_mapped is not None  # "1::2" is a slice, not an address
    return named and (address.is_global or not public_only)


def _is_version(text: str, start: int) -> bool:
    return _VERSION_BEFORE.search(text[max(0, start - _CONTEXT) : start]) is not None


def _keys(text: str) -> Iterator[tuple[int, int]]:
    found = [match.span() for sign, pattern in _KNOWN_KEYS if sign in text for match in pattern.finditer(text)]
    found += [span for span in _around(_DIGIT_THEN_LETTER, _MIXED, text) if _is_mixed(text[slice(*span)])]
    found += _around(_BETWEEN_HYPHENS, _PRODUCT, text)
    found += [match.span() for match in _CARD.finditer(text) if _is_card(match.group())]
    end = 0
    for span in sorted(found, key=lambda span: (span[0], -span[1])):
        if span[0] >= end:
            end = span[1]
            yield span


def _is_mixed(written: str) -> bool:
    """Whether a match of `_MIXED` is one without the escapes of quoted-printable text ("size=3D2=3E")."""
    plain = _ESCAPE.sub(" ", written)
    return plain == written or _MIXED.search(plain) is not None


def _around(sign: re.Pattern[str], pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Matches of `pattern` in runs without white space that contain a `sign` of it."""
    done = 0
    for seen in sign.finditer(text):
        if seen.start() >= done:
            first = max(done, seen.start() - _REACH)
            start = max(text.rfind(" ", first, seen.start()), text.rfind("\n", first, seen.start()), first - 1) + 1
            space = _SPACE.search(text, seen.end())
            done = space.start() if space else len(text)
            yield from (match.span() for match in pattern.finditer(text, start, done))


def _is_card(written: str) -> bool:
    """Whether a number has the check digit of a payment card (Luhn) and is not an ISBN."""
    digits = [int(sign) for sign in written if sign.isdigit()]
    if len(digits) == 13 and digits[:3] in ([9, 7, 8], [9, 7, 9]):
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1
