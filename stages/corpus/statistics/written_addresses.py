"""Finds e-mail addresses whose "@" is written in another way: encoded, in brackets, or as a word.

    anna%40example.com, anna=40example.com, anna&#64;example.com      URLs, quoted-printable, HTML
    anna [at] example.com, anna(at)example(dot)com                    in brackets
    eva.holm at example.com, anna at example dot com                  as words, see below

As a word, "at" is usually not a sign: "more at example.com". It counts if the name before it is not a plain word, or if
the dots of the domain are written as words, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SIGN = re.compile(
    r"(?P<encoded>%40|=40|&#0{0,4}64;|&#x0{0,4}40;|&commat;)"
    r"|[ \t]?[\[({<][ \t]?(?:at|@)[ \t]?[\])}>][ \t]?"
    r"|(?P<word>[ \t]at[ \t])",
    re.IGNORECASE,
)
# Scripts without spaces between words, where a word may end anywhere: Thai to Khmer, kana, Han.
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_IN_WORD = re.compile(rf"[^\W{UNSPACED}]")
_NAME_REACH = 65  # characters before a sign; the name before "@" has at most 64 (RFC 5321)
_LABEL = rf"[^\W_{UNSPACED}](?>(?:(?:[^\W{UNSPACED}]|-){{0,62}}[^\W_{UNSPACED}])?)"
_BRACKETED_DOT = r"[ \t]?[\[({<][ \t]?(?:dot|\.)[ \t]?[\])}>][ \t]?"
_DOMAIN = re.compile(rf"{_LABEL}(?>(?:(?:\.|{_BRACKETED_DOT}){_LABEL}){{1,6}})", re.IGNORECASE)
_TOP_LEVEL = re.compile(r"[^\W\d_]{2,24}\Z")
_SPOKEN_DOMAIN = re.compile(
    rf"(?!(?:the|an?|this|that|its?|my|our|your|their|his|her|one|each|any|some)\b){_LABEL}"
    rf"(?>(?:[ \t]dot[ \t]{_LABEL}){{1,6}})",
    re.IGNORECASE,
)
_NOT_PLAIN = re.compile(r"[a-z][\w+-]*[._+\d]|[a-z]\w*-", re.IGNORECASE)
# Names of files, programs and hosts are not names of persons: "Node.js at nodejs.org".
_FILE = re.compile(
    r"\.(?:com|net|org|io|js|ts|py|rb|rs|go|php|html?|css|xml|json|txt|md|pdf|docx?|zip|exe)\Z", re.IGNORECASE
)


def written_addresses(text: str) -> Iterator[tuple[int, int]]:
    """The ranges of characters of such addresses, by position, without overlaps."""
    end = 0
    for sign in _SIGN.finditer(text):
        first = max(end, sign.start() - _NAME_REACH)
        name = _last_name(text, first, sign.start())
        if name is None:
            continue
        domain = _domain(text, sign, text[name : sign.start()])
        if domain is not None:
            end = domain
            yield name, end


def _last_name(text: str, first: int, stop: int) -> int | None:
    """The start of the name that ends at `stop`, or None."""
    start = stop
    while start > first and (text[start - 1] in ".+-" or _IN_WORD.match(text[start - 1])):
        start -= 1
    if start and start == first and _IN_WORD.match(text[start - 1]):
        return None  # longer than a name may be
    while start < stop and text[start] in "._+-":
        start += 1
    return start if start < stop and text[stop - 1] not in ".+-" else None


def _domain(text: str, sign: re.Match[str], name: str) -> int | None:
    """The end of the domain after a sign, or None if there is none or if the sign is an ordinary word."""
    ordinary = sign["word"] and (not _NOT_PLAIN.match(name) or _FILE.search(name))
    for pattern in (_SPOKEN_DOMAIN,) if ordinary else (_SPOKEN_DOMAIN, _DOMAIN):
        found = pattern.match(text, sign.end())
        if found and _TOP_LEVEL.search(found.group()):
            return found.end()
    return None


_UUENCODED = re.compile(r"^[>| ]{0,8}(M[ -`]{60})(?![!-~])", re.MULTILINE)
_UUENCODED_SPACES = 6  # that such a line may have: prose in capitals has more
_UUENCODED_BYTES = 45  # of a full line, which begins with "M"


def uuencoded(text: str) -> list[tuple[int, int]]:
    """The ranges of full lines of uuencoded data, each with the shorter last line that follows."""
    found = []
    for line in _UUENCODED.finditer(text):
        if line[1].count(" ") > _UUENCODED_SPACES:
            continue
        end = line.end()
        if text[end : end + 1] == "\n":
            stop = text.find("\n", end + 1, end + 2 + 61)
            last = text[end + 1 : len(text) if stop < 0 else stop]
            if last and 0 < (size := ord(last[0]) - 32) < _UUENCODED_BYTES and len(last) == 1 + -(-size // 3) * 4:
                end += 1 + len(last)
        found.append((line.start(), end))
    return found
