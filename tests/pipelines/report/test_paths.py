"""Paths of the machine are shortened where they are read, and whole where they are copied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.report.page import render
from pipelines.report.paths import shortener
from tests.pipelines import samples
from tests.pipelines.test_report import Page


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ("/home/ada/project/corpus.txt", "~/project/corpus.txt"),
        ("root: /home/ada", "root: ~"),
        ("in '/home/ada/project/.bloomline/runs/7': full", "in '.bloomline/runs/7': full"),
        ("root: /home/ada/project/.bloomline", "root: ~/project/.bloomline"),
        ("/home/ada.old/x and /home/adam", "/home/ada.old/x and /home/adam"),
        ("/mnt/home/ada/x", "/mnt/home/ada/x"),
        ("s3://bucket/home/ada/x", "s3://bucket/home/ada/x"),
    ],
)
def test_paths_below_home_and_the_store(text: str, shorter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert shortener("/home/ada/project/.bloomline")(text) == shorter


def test_without_a_home_or_with_a_store_in_a_bucket_nothing_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert shortener("s3://bucket/store")("/a s3://bucket/store/b") == "/a s3://bucket/store/b"


def test_the_page_has_short_paths_except_in_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    sample = samples.run(
        tmp_path,
        command="bloomline run steps.corpus.path=/home/ada/text",
        config_yaml="path: /home/ada/text\n",
        notes=("kept in /home/ada/s/runs/7/spool",),
    )
    step = replace(
        sample.steps[0],
        config={"sources": [{"path": "/home/ada/text"}]},
        artifact="/home/ada/s/artifacts/corpus",
        facts={"folder": "/home/ada/text"},
    )
    text = Page(render(replace(sample, steps=(step, *sample.steps[1:])), "/home/ada/s")).text
    assert text.count("/home/ada") == text.count("bloomline run steps.corpus.path=/home/ada/text") == 2
    for wanted in (
        "path: ~/text",
        "kept in s/runs/7/spool",
        "{'path': '~/text'}",
        "s/artifacts/corpus",
        "folder ~/text",
    ):
        assert wanted in text
    assert "~/s" in text  # where the store is
