"""With a key, a record that its holders did not write is damage: named and not used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from pipelines import artifacts
from pipelines.artifacts import Scope
from pipelines.graph import build
from pipelines.plan import Plan, make
from pipelines.store import Record, Store, StoreConfig
from pipelines.store.signature import sign
from tests.pipelines.demo import six_steps
from tests.pipelines.support import put, run, states

pytestmark = pytest.mark.usefixtures("demo_stages")

KEY, OTHER = "k" * 32, "o" * 32
SCOPE = Scope("demo", named=False)


def opened(path: Path, key: str | None = KEY, previous: str | None = None) -> Store:
    return Store(StoreConfig.model_validate({"root": str(path), "signing_key": key, "previous_signing_key": previous}))


@pytest.fixture
def signed(tmp_path: Path) -> Store:
    return opened(tmp_path / "store")


def plan_of(store: Store) -> Plan:
    return make(build("demo", six_steps()), store, "abcdef")


def record_path(record: Record) -> str:
    return f"records/{record.fingerprint}.json"


def test_a_signed_record_is_read_back_with_and_without_the_key(signed: Store, tmp_path: Path) -> None:
    record = put(signed, plan_of(signed), "a", "run", "a")
    assert signed.record(record.fingerprint) == record
    assert opened(tmp_path / "store", key=None).record(record.fingerprint) == record
    written = signed.files.read(record_path(record)) or b""
    assert re.fullmatch("hmac-sha256:[0-9a-f]{64}", json.loads(written)["signature"])
    assert KEY.encode() not in written


def unsigned(content: bytes) -> bytes:
    return re.sub(rb',\n "signature": "[^"]*"', b"", content)


TAMPERED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "changed": (lambda content: content.replace(b'"seconds": ', b'"seconds": 9'), "its signature is not of"),
    "unsigned": (unsigned, "it is not signed"),
    "another key": (
        lambda content: sign(unsigned(content), "records/x.json", SecretStr(OTHER)),
        "its signature is not",
    ),
    "no key": (
        lambda content: re.sub(rb"sha256:[0-9a-f]{64}", b"sha256:" + b"0" * 64, content),
        "its signature is not",
    ),
    "after it": (lambda content: content[:-2] + b',\n "more": 1\n}', "it is not signed"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_record_is_named_and_not_used(signed: Store, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    record = put(signed, plan_of(signed), "a", "run", "a")
    change, why = TAMPERED[how]
    content = signed.files.read(record_path(record)) or b""
    assert change(content) != content
    signed.files.write(record_path(record), change(content))
    step = plan_of(signed).steps["a"]
    assert (step.state, step.record) == ("run", None)
    assert step.reason.startswith("damaged: ")
    assert why in step.reason
    assert record_path(record) in step.reason
    assert artifacts.verify(signed, [], SCOPE) == 1
    assert why in capsys.readouterr().out
    again = put(signed, plan_of(signed), "a", "run", "a")
    assert signed.record(record.fingerprint) == again


def test_without_a_key_a_changed_record_is_trusted(tmp_path: Path) -> None:
    """What SECURITY.md says of a shared store without signatures."""
    store = opened(tmp_path / "store", key=None)
    record = put(store, plan_of(store), "a", "run", "a")
    content = store.files.read(record_path(record)) or b""
    store.files.write(record_path(record), content.replace(b'"headline": null', b'"headline": "forged"'))
    found = store.record(record.fingerprint)
    assert found is not None
    assert found.headline == "forged"


def test_a_record_cannot_take_the_place_of_another(signed: Store) -> None:
    plan = plan_of(signed)
    one, other = put(signed, plan, "a", "run", "a"), put(signed, plan, "b", "run", "b")
    content = (signed.files.read(record_path(one)) or b"").replace(one.fingerprint.encode(), other.fingerprint.encode())
    signed.files.write(record_path(other), content)
    assert "its signature is not of" in signed.unreadable(other.fingerprint)
    signed.files.write(record_path(other), signed.files.read(record_path(one)) or b"")
    assert "its signature is not of" in signed.unreadable(other.fingerprint)


def test_the_signature_covers_the_content(signed: Store) -> None:
    record = put(signed, plan_of(signed), "a", "run", "a")
    path = signed.config.local_root / record.location / "text.txt"
    path.chmod(0o644)
    path.write_text("b")
    assert [damage.what for damage in signed.inspect(record)] == ["has other content than what was written"]


def test_a_key_is_replaced_by_way_of_the_previous_one(signed: Store, tmp_path: Path) -> None:
    record = put(signed, plan_of(signed), "a", "run", "a")
    assert opened(tmp_path / "store", OTHER).record(record.fingerprint) is None
    both = opened(tmp_path / "store", OTHER, previous=KEY)
    assert both.record(record.fingerprint) == record
    new = put(both, plan_of(both), "b", "run", "b")
    assert opened(tmp_path / "store", OTHER).record(new.fingerprint) == new


def test_a_run_signs_what_it_makes_and_finds_it_again(signed: Store) -> None:
    summary, *_ = run(signed, six_steps())
    assert states(summary) == " ".join(f"{name}:done" for name in "abcdef")
    assert {step.state for step in plan_of(signed).steps.values()} == {"cached"}


def test_the_key_is_neither_shown_nor_sent_to_steps(signed: Store) -> None:
    assert KEY not in repr(signed.config)
    assert KEY not in signed.config.model_dump_json()
    sent = signed.config.for_steps()
    assert (sent.signing_key, sent.accepted_keys) == (None, ())


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"signing_key[\s\S]*at least 32 characters"):
        opened(Path("x"), "short-key")


def test_a_previous_key_alone_would_verify_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="previous_signing_key without signing_key"):
        opened(tmp_path / "store", key=None, previous=OTHER)
