"""What a terminal shows while a plan reads many files."""

from __future__ import annotations

import io
from pathlib import Path

from pipelines.reading_meter import CLEAR_LINE, reading_meter
from pipelines.store.digests import DigestMemory, sha256_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_number_of_files_is_shown_and_then_removed() -> None:
    out = Terminal()
    with reading_meter(out, first_s=0) as watch:
        assert watch is not None
        watch(1024)
        watch(1024)
    assert out.getvalue() == f"{CLEAR_LINE}Reading input files: 1 (1.0 KiB){CLEAR_LINE}"


def test_a_plan_of_few_files_and_a_log_show_nothing() -> None:
    out = Terminal()
    with reading_meter(out) as watch:
        assert watch is not None
        watch(1024)
    assert out.getvalue() == ""
    with reading_meter(io.StringIO()) as nothing:
        assert nothing is None


def test_digests_are_remembered_in_batches_also_when_reading_fails(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(5)]
    for file in files:
        file.write_text(file.name)
    seen: list[int] = []
    memory = DigestMemory(tmp_path / "digests.sqlite")
    memory.watch = seen.append
    try:
        with memory.in_batches():
            found = [memory.digest(file) for file in files]
            memory.digest(tmp_path / "none")
    except FileNotFoundError:
        pass
    assert found == [sha256_of(file) for file in files]
    assert seen == [5] * 5
    again = DigestMemory(tmp_path / "digests.sqlite")
    again.watch = seen.append
    known = again.known()
    assert all(str(file) in known for file in files) or not known  # files this new may not be remembered
