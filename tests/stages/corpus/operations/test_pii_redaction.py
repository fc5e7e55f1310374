"""Personal and secret strings: everything planted is replaced, and nothing else changes."""

from __future__ import annotations

import itertools
import re
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.corpus.operations.operation import Draft
from stages.corpus.statistics.pii_patterns import KINDS, find
from tests.stages.corpus.examples import SAMPLE_AND_FULL, read_lines
from tests.stages.corpus.operations.support import apply, made, text_of
from tests.stages.corpus.statistics.test_pii_patterns import ALL_PLANTED
from tests.support import test_data


def test_replaced_in_place_and_counted() -> None:
    draft = Draft("anna@x.org, @annabel; 8.8.8.8 and 8.8.8.81!", path="p", counts={"pii_email": 2})
    made_of = made("redact_pii").function()(draft)
    assert isinstance(made_of, Draft)
    assert made_of.text == "PI:EMAIL, PI:USER; PI:IP_ADDRESS and PI:IP_ADDRESS!"
    assert made_of.counts == {"pii_email": 3, "pii_user": 1, "pii_ip_address": 2}
    assert draft.counts == {"pii_email": 2}


def test_a_part_of_a_longer_word_is_never_replaced() -> None:
    """ROOTS replaced the found string everywhere, in longer words as well."""
    text = "mail bob@x.org and notbob@x.organic; @ann met @annette; 1.2.3.44 is no v1.2.3.4"
    assert text_of(apply("redact_pii", text)) == (
        "mail PI:EMAIL and PI:EMAIL; PI:USER met PI:USER; PI:IP_ADDRESS is no v1.2.3.4"
    )


def test_kinds_and_replacement_are_parameters() -> None:
    text = "@property and anna@x.org"
    assert text_of(apply("redact_pii", text, kinds=["EMAIL"], replacement="<{kind}>")) == "@property and <EMAIL>"
    assert text_of(apply("redact_pii", text, replacement="")) == " and "


BENIGN = st.text(alphabet=string.ascii_lowercase + " ,.;!?\n", max_size=40)


@settings(max_examples=40)
@given(st.lists(st.tuples(BENIGN, st.sampled_from(ALL_PLANTED)), max_size=5), BENIGN)
def test_everything_planted_goes_and_everything_else_stays(parts: list[tuple[str, tuple[str, str]]], end: str) -> None:
    text = "".join(f"{before} {written} " for before, (_, written) in parts) + end
    expected = "".join(f"{before} PI:{kind} " for before, (kind, _) in parts) + end
    assert text_of(apply("redact_pii", text)) == expected


@given(st.text(max_size=200))
def test_redaction_is_final(text: str) -> None:
    once = text_of(apply("redact_pii", text))
    assert [span for span in find(once, KINDS) if span.kind == "EMAIL"] == []


def mails() -> list[str]:
    """Messages with headers, quotes and signatures, and addresses in all of them."""
    names = ("anna.berg", "o-brien", "j_doe+lists", "x1", "maria.del.carmen", "Kofi.Mensah")
    hosts = ("example.org", "mail.example.com", "lists.example.co.uk", "b\u00fccher.example", "10.example.net")
    found = []
    for number, (name, host) in enumerate(itertools.product(names, hosts)):
        sender, other = f"{name}@{host}", f"{names[number % 6]}.{number}@{hosts[number % 5]}"
        found.append(
            f'Return-Path: <{sender}>\nFrom: "{name}" <{sender}>\nTo: {other}, <{sender}>; list-{number}@{host}\n'
            f"Message-ID: <{number}.{number * 7919}@{host}>\nCc: undisclosed:;\nSubject: Re: the bridge\n\n"
            f"On Monday {other} wrote:\n> Write to {sender}, please (or mailto:{other}?subject=bridge).\n"
            f"> -- \n> [{other}] {name}\n\nI agree.\n\n{name}\n{sender}.\nhttps://example.org/~{name}/\n"
        )
    return found


@SAMPLE_AND_FULL
def test_no_address_is_left_in_a_corpus_of_mail(size: str) -> None:
    address = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
    function = made("redact_pii").function()
    raw = (
        mails() if size == "sample" else [r["raw"] for r in read_lines(test_data("messy", "spamassassin-raw.jsonl.gz"))]
    )
    planted = left = 0
    for mail in raw:
        planted += len(address.findall(mail))
        left += len(address.findall(text_of(function(Draft(mail, path="p")))))
    assert planted > (5000 if size == "full" else 200)
    assert left == 0
