"""A page that was made to take long, or to break the library, costs that page only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from stages.corpus import extraction_process
from stages.corpus.extraction_process import ExtractionError, ExtractionProcess
from stages.corpus.operations.html_extraction import MAX_ATTRIBUTES, most_attributes
from stages.corpus.operations.operation import Draft, Drop
from tests.stages.corpus.operations.support import apply, rule_of, text_of
from tests.stages.corpus.operations.test_html_extraction import PAGE

# libxml2 needs 20 s for this one. The quoted "<" hides its element from the estimate of attributes.
SLOW = '<p title="<" ' + " ".join(f"a{number}=1" for number in range(90_000)) + ">x"


def test_a_page_that_takes_too_long_is_dropped_and_the_next_one_extracted() -> None:
    found = apply("extract_html", SLOW, cpu_s=1)
    assert isinstance(found, Drop)
    assert (found.rule, found.value, found.threshold) == ("page_too_slow", "more than 1 s of CPU time", 1)
    assert "nobody in the village" in text_of(apply("extract_html", PAGE, cpu_s=1))


def test_an_element_with_many_attributes_is_dropped_before_it_is_parsed() -> None:
    page = PAGE.replace("<article>", "<article " + " ".join(f"a{number}='x y'" for number in range(90_000)) + ">")
    found = apply("extract_html", page)
    assert isinstance(found, Drop)
    assert (found.rule, found.value, found.threshold) == ("too_many_attributes", 90_000, MAX_ATTRIBUTES)


@pytest.mark.parametrize(
    "harmless",
    [
        "<p title='" + "word " * 5000 + "'>",
        "<img src='data:image/png;base64," + "A" * 100_000 + "'>",
        "<script>for (i=0; i<n; i++) {" + "a = b; " * 5000 + "}</script>",
        "<style>a <b " + "c " * 5000 + "</style>",
        "<!-- <b " + "c " * 5000 + "-->",
        "1 < 2 " + "c " * 5000,
        "<p " + "a " * MAX_ATTRIBUTES + ">",
    ],
)
def test_long_values_scripts_and_comments_are_no_attributes(harmless: str) -> None:
    assert most_attributes(PAGE + harmless + PAGE) <= MAX_ATTRIBUTES


@pytest.fixture(scope="module")
def process() -> ExtractionProcess:
    return ExtractionProcess("trafilatura")


def test_a_process_that_is_lost_costs_the_page_that_it_had(
    process: ExtractionProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process.extract(PAGE.encode(), {}, 30)
    running = process._process
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)  # so that it still has the page when it is killed
    send = extraction_process._send

    def send_and_kill(pipe: IO[bytes], *frames: bytes) -> None:
        send(pipe, *frames)
        os.kill(running.pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(extraction_process, "_send", send_and_kill)
        with pytest.raises(ExtractionError, match="the extraction ended with SIGKILL"):
            process.extract(PAGE.encode(), {}, 30)
    assert process.extract(PAGE.encode(), {}, 30)


def test_a_process_that_is_lost_between_two_pages_costs_none(process: ExtractionProcess) -> None:
    assert process.extract(PAGE.encode(), {}, 30)
    running = process._process
    assert running is not None
    running.kill()
    running.wait()
    assert process.extract(PAGE.encode(), {}, 30)


def test_what_the_library_raises_is_said_of_the_page(process: ExtractionProcess) -> None:
    with pytest.raises(ExtractionError, match=r"TypeError.*no_such_option"):
        process.extract(PAGE.encode(), {"no_such_option": 1}, 30)
    assert process.extract(PAGE.encode(), {}, 30)


def test_the_process_ends_with_its_parent() -> None:
    code = (
        "from stages.corpus.extraction_process import shared_process\n"
        "shared_process('trafilatura').extract(b'<p>x', {}, 9)\n"
        "print(shared_process('trafilatura')._process.pid, flush=True)\n"
        "import os; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    # The pipe to this test closes when the last process that holds it ends: `run` returned, so the child ended too.
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.strip().isdigit()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)  # importing it raises ModuleNotFoundError
    real: Any = subprocess.Popen

    def without_libraries(command: list[str], **options: Any) -> Any:
        return real([command[0], "-I", "-S", *command[1:]], **options)

    monkeypatch.setattr(subprocess, "Popen", without_libraries)
    with pytest.raises(ModuleNotFoundError, match="trafilatura"):
        ExtractionProcess("trafilatura").extract(PAGE.encode(), {}, 30)


def test_surrogates_survive_the_way(process: ExtractionProcess) -> None:
    assert process.extract(PAGE.replace("The bridge", "\ud800").encode("utf-8", "surrogatepass"), {}, 30)


def test_pages_without_a_text_do_not_end_the_process() -> None:
    for page in ("", "<" * 1000, "<div>" * 20_000, "<b>" * 5000 + "x", "<table><tr><td>" * 2000, "&" * 10_000):
        assert rule_of(apply("extract_html", page, cpu_s=10)) in ("no_main_text", "extraction_failed", None)


ENTITIES = """<?xml version="1.0"?><!DOCTYPE html [<!ENTITY file SYSTEM "file://{secret}">
<!ENTITY a "{long}"><!ENTITY b "{as_}"><!ENTITY c "{bs}"><!ENTITY d "{cs}"><!ENTITY e "{ds}">]>"""


def test_entities_are_neither_read_from_files_nor_expanded(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the content of the file " * 20)
    names = {f"{name}s" if name != "a" else "as_": f"&{name};" * 100 for name in "abcd"}
    head = ENTITIES.format(secret=secret, long="expanded " * 20, **names)
    page = head + PAGE.replace("The old bridge", "&file; &e; The old bridge")
    found = apply("extract_html", page, cpu_s=5)
    if isinstance(found, Draft):
        assert "the content of the file" not in found.text
        assert len(found.text) < 10 * len(page)
