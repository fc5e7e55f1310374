"""Personal and secret strings: what is found, and what only resembles them."""

from __future__ import annotations

import binascii
import hashlib
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.statistics.pii_patterns import Kind, find


def found(text: str, **options: bool) -> list[tuple[str, str]]:
    return [(kind, text[start:end]) for kind, start, end in find(text, **options)]  # type: ignore[arg-type]


def full_width(written: str) -> str:
    """As East Asian keyboards write ASCII."""
    return "".join(chr(ord(sign) + 0xFEE0) for sign in written)


PLANTED = {
    "EMAIL": (
        "anna@example.org", "a.b+c@sub-domain.example.co.uk", "root@localhost", "x@[192.0.2.1]", "o'neil@example.com",
        '"odd"@example.com', "почта@пример.рф", "1234.5678@host.example", "a@b@example.com", "...@example.com",
        "anna\uff20example\uff0eorg", full_width("anna@example.org"),
        "anna%40example.org", "jon.falk=40mail.example.com", "anna&#64;example.org", "anna&#x40;example.org",
        "anna&commat;example.org", "anna [at] example.org", "anna(at)example(dot)co(dot)uk", "anna {at} example.org",
        "a.b+c <AT> sub-domain.example.co.uk", "eva.holm at example.com", "eva_h at example.co.uk",
        "anna at example dot com", "ANNA AT EXAMPLE DOT COM", "anna[at]example[dot]com", "почта [at] пример.рф",
    ),
    "USER": ("@anna_k", "@user-name", "@имя", "@abc"),
    "IP_ADDRESS": (
        "8.8.8.8", "192.168.17.4", "203.0.113.255", "2001:db8:85a3::8a2e:370:7334", "fe80::1ff:fe23:4567:890a%eth0",
        "2001:0db8:0000:0000:0000:ff00:0042:8329", "::ffff:192.0.2.128", full_width("8.8.8.8"),
    ),
    "KEY": (
        "AKIAIOSFODNN7EXAMPLE", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
        "xoxb-123456789012-abcdefGHIJ", "sk-proj-abcdefghijkl_MNOPQRST", "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9",
        "5686ae05b8d5e6eb569995e3e4fb2751", "550e8400-e29b-41d4-a716-446655440000", "a1b2c3d4",
        "ABCD1-EFGH2-IJKL3", "4111 1111 1111 1111", "5500-0000-0000-0004",
        "hf_" + "aBcDeFgHiJ" * 3 + "kLmN", "npm_" + "abcdefghi" * 4, "glpat-ABCDEFGHIJKLMNOPQRST",
        "pypi-" + "AgEIc" * 10,
        "SG." + "ngeVfQFYQlKUabcdefghij." + "TwLiGABfDHoTfkqeFtAmbihYzrnopKcsabcdefghijk",
        "ya29.abcdefghijklmnopqrstuv",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nabc=\n-----END RSA PRIVATE KEY-----",
    ),
}  # fmt: skip


ALL_PLANTED = [(kind, written) for kind, all_written in PLANTED.items() for written in all_written]


AROUND = [
    ("", ""), ("write to ", " or"), ("(", ")"), ("“", "”"), ("line\n", "\nline"), ("see: ", ", then"), ("", "."),
    ("联系", "谢谢"), ("<", ">"), ("ที่ ", " ครับ"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "written"), ALL_PLANTED)
def test_what_is_planted_is_found_whole_wherever_it_stands(kind: str, written: str) -> None:
    for before, after in AROUND:
        if kind != "EMAIL" and before == "联系":
            continue  # a key or address within a run of letters of any script is not a separate word
        assert found(before + written + after) == [(kind, written)], before


@pytest.mark.parametrize(
    "text",
    [
        "2024-11-23", "23.11.2024", "11/23/2024", "2024-11-23T10:20:30Z", "12:30:45", "1914-1918", "10.11.12",
        "version 10.2.3.4", "v1.2.3.4", "release: 4.3.2.1",
        "pip install x==1.2.3.4", "section 1.2.3.4 says", "1.2.3.4.5",
        "1.2.3", "127.0.0.1", "0.0.0.0", "255.255.255.0", "::1", "::", "224.0.0.1", "999.1.1.1", "300.300.300.300",
        "ISBN 978-0-306-40615-7", "9780306406157", "ISBN 0-306-40615-2", "4111 1111 1111 1112",
        "a[1::2]", "std::vector", "a::b", "Face::Bad", "x ? y::z : w", "{a: 1, b: 2}",
        "state-of-the-art-thing", "x86_64-linux-gnu", "C6H12O6", "h264 and mp3", "A4 B5", "UTF-8", "covid-19",
        "1 234 567 890 123", "3.14159265358979", "+1 (555) 123-4567", "123 456 789", "1914 1915 1916 1917",
        "5 @ 3 each", "@", "a@", "@@", "@ab", "foo@@bar", "http://example.org/path?query=value",
        full_width("@"), full_width("1998") + "年", full_width("@") + "東京", full_width("12:30"),
        "0000000000000000", "0000 0000 0000 0000",
        "read more at example.com", "look at the dot com boom", "Node.js at nodejs.org", "index.html at example.org",
        "Python 3.11 at python.org", "we met at noon", "at 10.30 at the station", "npm/%40angular/core%4012.3.1",
        "width=40px", "%40", "=40", "x%40y", "good (at) best", "U.S. at large", "all at once. Then dot by dot",
        "<font face=3DVerdana=3E=3CSTRONG=3E=3CFONT size=3D2 color=3D#336699>",
    ],
)  # fmt: skip
def test_text_that_only_resembles_personal_data_is_not_found(text: str) -> None:
    assert found(text) == []
    assert found(f"It was {text}, they said.") == []


def test_private_networks_stay_on_demand() -> None:
    text = "8.8.8.8 192.168.0.7 10.0.0.3 2001:4860:4860::8888 fd00::1234:5678"
    assert [written for _, written in found(text)] == text.split()
    assert [written for _, written in found(text, public_addresses_only=True)] == ["8.8.8.8", "2001:4860:4860::8888"]


@given(st.text(alphabet=st.sampled_from("ab1.@:-/ =f%中é_[]\"'A\n"), max_size=60))
def test_finds_are_ordered_apart_and_whole_words(text: str) -> None:
    spans = find(text)
    assert all(one.end <= two.start for one, two in pairwise(spans))
    for kind, start, end in spans:
        assert start < end
        if kind != "USER":
            before, after = text[start - 1 : start], text[end : end + 1]
            assert not (before.isascii() and before.isalnum() and text[start].isascii() and text[start].isalnum())
            assert not (after.isascii() and after.isalnum() and text[end - 1].isascii() and text[end - 1].isalnum())


def test_uuencoded_lines_hold_no_address() -> None:
    data = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(40))[:1200]
    lines = [binascii.b2a_uu(data[start : start + 45]).decode().rstrip("\n") for start in range(0, len(data), 45)]
    assert sum(line.count("@") for line in lines) > 10
    text = "\n".join(["begin 644 notes.txt", *lines, "`", "end", ""])
    assert found(text) == []
    assert found("> " + text.replace("\n", "\n> ")) == []
    assert found(text + "anna@example.org") == [("EMAIL", "anna@example.org")]
    loud = "MY ADDRESS IS BOB@EXAMPLE.COM AND I WILL BE HAPPY TO HEAR FROM YOU"
    assert found(loud) == [("EMAIL", "BOB@EXAMPLE.COM")]


def test_a_key_in_quoted_printable_text_is_still_found() -> None:
    assert found("<a token=3Dab12cd34ef56gh78>") == [("KEY", "token=3Dab12cd34ef56gh78")]


def test_telephone_numbers_and_accounts_are_found_on_demand() -> None:
    text = "Call +44 20 7946 0958 or (030) 1234567; pay to DE89 3704 0044 0532 0130 00 THANK YOU, 2024-11-23 at 12:30."
    kinds: tuple[Kind, ...] = ("PHONE", "IBAN")
    assert [(each.kind, text[each.start : each.end]) for each in find(text, kinds)] == [
        ("PHONE", "+44 20 7946 0958"),
        ("IBAN", "DE89 3704 0044 0532 0130 00"),
    ]
    german = [text[each.start : each.end] for each in find(text, ("PHONE",), phone_region="DE")]
    assert german == ["+44 20 7946 0958", "(030) 1234567"]
    assert not find("DE89 3704 0044 0532 0130 01, GB82 WEST 1234 5698 7654 33, XX12 3456 7890 1234", ("IBAN",))
    assert {each.kind for each in find(text)} <= {"EMAIL", "USER", "IP_ADDRESS", "KEY"}


UNITS = (
    "a%40", "a=40b.", "a at ", "at ", "a [at] b [dot] ", " at a dot b", "a.", "M" + "A" * 60 + "\n", "AB12 3456 ",
    "+44 20 ", "1 2",
    "a", "a.", "a1", "1 ", ":", "a:", "@", "a@", "-", "A1-", "/a", "+1a", "1.", "eyJaaaaaaaa.", "ABCD1-", "::1", '"@',
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN A B C PRIVATE KEY-----",
)  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    """Against quadratic patterns, which would take minutes."""
    text = unit * (200_000 // len(unit))
    start = time.process_time()
    find(text)
    find(text, ("IBAN",))
    assert time.process_time() - start < 20
