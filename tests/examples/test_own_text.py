"""From text files to a served model."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterable

import pytest

from tests.examples.conftest import Project

CONFIG = ("--config-dir", "conf", "pipeline=own_text", "cluster=inline")


@pytest.mark.slow
def test_the_model_learns_the_text_and_is_served(project: Project) -> None:
    project("run", *CONFIG)
    records = {step: records[0] for step, records in project.records().items()}
    assert set(records) == {"corpus", "tokenizer", "tokens", "pretrain", "evaluate", "deploy"}
    assert records["evaluate"].metrics["bits_per_byte"] < 3  # a byte of any text at all has 8
    server = project.start("serve", *CONFIG)
    try:
        assert server.stdout is not None
        url = address(server.stdout)
        body = json.dumps({"prompt": "The wind ", "max_tokens": 8}).encode()
        request = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["choices"][0]["text"]
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
    finally:
        server.kill()


def address(lines: Iterable[str]) -> str:
    """The address that `serve` prints once it answers."""
    for line in lines:
        if found := re.search(r" at (http://\S+) ", line):
            return found[1]
    raise AssertionError("the server printed no address")
