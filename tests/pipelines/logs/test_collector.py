"""Collecting what processes print: everything arrives, bounded and without secrets, or it is said what did not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.printed_output import OutputFile, part_name
from pipelines import redaction
from pipelines.logs import kept_log
from pipelines.logs.collector import Collector, _Log
from pipelines.logs.kept_log import KeptLog, as_drawn
from pipelines.logs_config import LogsConfig
from pipelines.store import Store
from pipelines.store.files import LocalFiles, StoreError

RUN = "20260101-000000-abcd"


@pytest.fixture
def secret() -> Iterator[str]:
    """A secret that the configuration of this process holds."""
    key = "first line of the key\nsecond line of the key"
    redaction.remember({"password": key}, {"password": "***"})
    yield key
    for value in (key, *key.splitlines()):
        redaction._hidden.pop(value, None)


def collected(store: Store, run_id: str = RUN) -> dict[str, bytes]:
    return {
        f"{log.step}/{log.process}": b"".join(content for _, _, content in kept_log.read(store, run_id, log))
        for log in kept_log.logs(store, run_id)
    }


def raw(store: Store, step: str, process: str) -> Path:
    return store.config.state / "runs" / RUN / "output" / step / process


def print_to(directory: Path, text: str) -> None:
    log = OutputFile(directory)
    log.write(text)
    log.close()


def test_lines_arrive_as_they_come_and_the_last_one_at_the_end(store: Store) -> None:
    collector = Collector(LogsConfig(), store, RUN)
    print_to(raw(store, "train", "rank-1"), "one\ntw")
    assert collector._collect(False) == ""
    assert collected(store) == {"train/rank-1": b"one\n"}
    print_to(raw(store, "train", "rank-1"), "o\nthree")
    collector._collect(False)
    assert collected(store) == {"train/rank-1": b"one\ntwo\n"}
    collector._collect(True)
    assert collected(store) == {"train/rank-1": b"one\ntwo\nthree"}
    assert not (store.config.state / "runs" / RUN / "output").exists()


def test_no_secret_is_stored(store: Store, secret: str) -> None:
    print_to(raw(store, "train", "step"), f"with {secret}\nhttps://user:word@host/?sig=abc\n{secret[:21]}\n")
    Collector(LogsConfig(), store, RUN)._collect(True)
    text = collected(store)["train/step"].decode()
    assert "line of the key" not in text
    assert "word" not in text
    assert text.startswith("with ***")


def test_a_long_line_is_divided_where_no_secret_is(store: Store, secret: str) -> None:
    line = secret.replace("\n", "") + " "
    redaction.remember({"password": line.strip().replace(" ", "-")}, {"password": "***"})
    hidden = line.strip().replace(" ", "-")
    try:
        print_to(raw(store, "train", "step"), f"{hidden} " * 5000)
        Collector(LogsConfig(), store, RUN)._collect(True)
        assert collected(store)["train/step"] == b"*** " * 5000
    finally:
        redaction._hidden.pop(hidden)


def test_the_middle_of_a_long_log_is_dropped_and_the_gap_is_known(store: Store) -> None:
    limit = 1 << 16
    collector = Collector(LogsConfig(largest_bytes=limit), store, RUN)
    for number in range(20):
        print_to(raw(store, "train", "step"), "".join(f"{number:02} {line:06}\n" for line in range(2000)))
        collector._collect(False)
    collector._collect(True)
    (log,) = kept_log.logs(store, RUN)
    total = 20 * 2000 * 10
    assert log.size <= limit + limit // 4
    assert log.size + log.dropped == total
    pieces = list(kept_log.read(store, RUN, log))
    assert pieces[0][2].startswith(b"00 000000\n")
    assert pieces[-1][2].endswith(b"19 001999\n")
    assert sum(dropped for dropped, _, _ in pieces) == log.dropped


def test_what_a_process_dropped_itself_is_a_gap(store: Store) -> None:
    directory = raw(store, "train", "step")
    directory.mkdir(parents=True)
    (directory / part_name(0)).write_text("begins\n")
    (directory / part_name(1000)).write_text("ends\n")
    Collector(LogsConfig(), store, RUN)._collect(True)
    (log,) = kept_log.logs(store, RUN)
    assert log.parts == ((0, 7), (1000, 5))
    assert log.dropped == 993


def test_a_store_that_is_out_of_reach_costs_nothing_that_was_printed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector(LogsConfig(largest_bytes=1 << 16), store, RUN)
    lines = "".join(f"line {number}\n" for number in range(3000))

    def refuse(self: LocalFiles, path: str, content: bytes) -> None:
        raise StoreError("the store is out of reach")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "write", refuse)
        print_to(raw(store, "train", "step"), lines)
        assert "out of reach" in collector._collect(False)
        assert "out of reach" in collector._collect(True)
        assert raw(store, "train", "step").exists()
    assert collector._collect(True) == ""
    assert collected(store) == {"train/step": lines.encode()}


@given(st.lists(st.text(alphabet="ab\n\r é", max_size=30), max_size=20), st.integers(1, 50))
def test_whatever_the_pieces_are_the_text_arrives(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], part_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("pieces")
    files = LocalFiles(directory / "store")
    log = _Log(files, directory / "raw", "log", 1 << 30)
    log._part_bytes = part_bytes
    for text in texts:
        print_to(directory / "raw", text)
        log.collect(False)
    log.collect(True)
    parts = sorted((int(name), size) for name, (size, _) in files.tokens("log").items())
    content = b"".join(files.read(f"log/{part_name(offset)}") or b"" for offset, _ in parts).decode()
    assert as_drawn(content) == as_drawn("".join(texts))
    assert [offset for offset, _ in parts] == [sum(size for _, size in parts[:count]) for count in range(len(parts))]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("10%\r20%\r30%\ndone\n", "30%\ndone\n"),
        ("a\r\nb\r\n", "a\r\nb\r\n"),
        ("10%\r20%\r", "20%\r"),
        ("plain", "plain"),
    ],
)
def test_of_a_progress_bar_the_last_drawing_stays(text: str, drawn: str) -> None:
    assert as_drawn(text) == drawn


def test_what_does_not_belong_to_a_log_is_left_out(store: Store) -> None:
    for path in ("train/step/x", "train/other/000000000000000", "x"):
        store.files.write(f"runs/{RUN}/logs/{path}", b"text")
    store.files.write(f"runs/{RUN}/logs/train/rank-10/{part_name(0)}", b"text")
    store.files.write(f"runs/{RUN}/logs/train/rank-9/{part_name(0)}", b"text")
    store.files.write(f"runs/{RUN}/logs/train/step/{part_name(0)}", b"text")
    found = kept_log.logs(store, RUN)
    assert [log.process for log in found] == ["step", "rank-9", "rank-10"]
    assert found == kept_log.logs(store, RUN, "train")
    assert KeptLog("train", "step", ()).dropped == 0
