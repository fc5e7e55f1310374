"""Identity: what changes a fingerprint, and what must not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.fingerprint import canonical_json, changes, fingerprint, payload, shown_payload
from pipelines.graph import Step, build
from pipelines.stage_values import shown_stage_values
from pipelines.store.digests import sha256_of
from stages.artifacts.corpus import Corpus
from stages.base import Stage
from stages.corpus.ingest import IngestCorpus
from tests.pipelines import demo
from tests.pipelines.demo import six_steps

pytestmark = pytest.mark.usefixtures("demo_stages")


def prints(steps: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, step in build("demo", steps).steps.items():
        found[name] = fingerprint(payload(step, found, sha256_of))
    return found


def differing(one: dict[str, str], other: dict[str, str]) -> str:
    return "".join(sorted(name for name in one if one[name] != other[name]))


@pytest.mark.parametrize(
    ("changed", "differ"),
    [
        ({"a__text": "A"}, "acdef"),
        ({"a__times": 2}, "acdef"),
        ({"a__mode": "fancy"}, "acdef"),
        ({"d__frames": [{"around": "a"}]}, "def"),
        ({"a__style": {"upper": True}}, "acdef"),
        ({"d__separator": "+"}, "def"),
        ({"f__factor": 2.0}, "f"),
        ({"c__texts": ["b", "a"]}, "cdef"),
        # How it runs, and fields that are set to their defaults:
        ({"a__workers": 8}, ""),
        ({"a__style": {"color": "blue"}}, ""),
        ({"a__style": {}}, ""),
        ({"a__times": 1}, ""),
        ({"a__mode": "plain"}, ""),
        ({"f__factor": 1}, ""),
        ({"c__ranks": 4}, ""),
        ({"c__retries": 3}, ""),
        ({"c__resources": {"cpus": 2}}, ""),
    ],
)
def test_what_enters_the_fingerprint(changed: dict[str, Any], differ: str) -> None:
    assert differing(prints(six_steps()), prints(six_steps(**changed))) == differ


def test_step_names_do_not_enter() -> None:
    renamed = {"x": {"stage": "make", "text": "a"}, "y": {"stage": "count", "text": "x"}}
    other = {"p": {"stage": "make", "text": "a"}, "q": {"stage": "count", "text": "p"}}
    assert list(prints(renamed).values()) == list(prints(other).values())


def test_a_new_field_at_its_default_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prints(six_steps())

    class Make(demo.Make):
        new: int = 7
        choice: str = "plain"
        items: tuple[int, ...] = (1, 2)

    monkeypatch.setattr(demo, "Make", Make)
    assert prints(six_steps()) == before
    assert differing(prints(six_steps(a__new=8)), before) == "acdef"


def test_a_new_version_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prints(six_steps())
    monkeypatch.setattr(demo.Join, "version", "2")
    assert differing(prints(six_steps()), before) == "cdef"


def test_external_content_enters_and_its_path_does_not(tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "elsewhere" / "other.txt"
    other.parent.mkdir()
    one.write_text("content")
    other.write_text("content")
    before = prints(six_steps(a__source={"path": str(one)}))
    assert prints(six_steps(a__source={"path": str(other)})) == before
    other.write_text("contenT")
    assert differing(prints(six_steps(a__source={"path": str(other)})), before) == "acdef"


def test_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from tests.pipelines import demo; import stages.registry;"
        "stages.registry.STAGES = demo.STAGES;"
        "from tests.pipelines.test_fingerprint import prints; print(prints(demo.six_steps())['f'])"
    )
    root = Path(__file__).parents[2]
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {prints(six_steps())["f"]}


class Odd(Stage):
    """A stage whose field has no canonical form."""

    value: Any = None


@pytest.mark.parametrize("value", [object(), Path("/x"), b"bytes", float("nan"), float("inf"), {1: 2}, len])
def test_a_value_without_canonical_form_is_an_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"steps\.odd\.value.*no canonical form"):
        payload(Step("odd", "odd", Odd(value=value), (), demo.Text), {}, sha256_of)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_canonical_json_is_a_function_of_the_value(value: object) -> None:
    shuffled = json.loads(json.dumps(value))
    if isinstance(shuffled, dict):
        shuffled = dict(reversed(shuffled.items()))
    assert canonical_json(shuffled) == canonical_json(value)


def test_changes_in_lists_name_the_entry() -> None:
    step = build("demo", six_steps()).steps["a"]

    def said(before: list[Any], after: list[Any]) -> list[str]:
        old, new = ({"stage": "s", "version": "1", "inputs": {}, "fields": {"x": value}} for value in (before, after))
        return changes(old, new, step)

    entries = [{"name": "words", "minimum": 3}, {"name": "lines"}]
    assert said(entries, [{"name": "words", "minimum": 5}, {"name": "lines"}]) == ["x[0].minimum 3 -> 5"]
    assert said(entries, [entries[0], {"name": "lines", "version": "2"}]) == ["x[1].version (none) -> '2'"]
    assert said(entries, entries[1:]) == ["x [{'name': 'words', 'minimum': 3}] -> []"]
    assert said([[1, 2], [3]], [[1, 4], [3]]) == ["x[0][1] 2 -> 4"]


def test_changes_of_how_content_is_read_name_the_option(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("one")

    def step(folder: Path = tmp_path, **options: Any) -> Step:
        reader = {"kind": "documents", "paths": [str(folder)], **options}
        return Step("corpus", "corpus", IngestCorpus(sources={"text": {"reader": reader}}), (), Corpus)

    def said(old: Step, new: Step) -> list[str]:
        before, after = (shown_payload(payload(one, {}, sha256_of), one) for one in (old, new))
        return changes(before, after, new, json.loads(json.dumps(shown_stage_values(old))))

    reader = "sources.text.reader"
    assert said(step(), step(bad_files="drop")) == [f"{reader}.bad_files 'fail' -> 'drop'"]
    assert said(step(), step(document_bytes=3000)) == [f"{reader}.document_bytes 4000 -> 3000"]
    assert said(step(), step(fields={"url": "link"})) == [f"{reader}.fields.url (none) -> 'link'"]
    (tmp_path / "two.md").write_text("two")
    assert said(step(), step(exclude=["*.md"])) == [f"{reader}.exclude [] -> ['*.md']"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "three.txt").write_text("three")
    assert said(step(), step(other)) == [f"the content of {reader} changed"]


def test_changes_name_the_field() -> None:
    def content(steps: dict[str, Any], name: str) -> tuple[Step, dict[str, Any]]:
        graph = build("demo", steps)
        found: dict[str, str] = {}
        payloads: dict[str, dict[str, Any]] = {}
        for step in graph.steps.values():
            payloads[step.name] = payload(step, found, sha256_of)
            found[step.name] = fingerprint(payloads[step.name])
        return graph.steps[name], payloads[name]

    def said(name: str, **changed: Any) -> list[str]:
        step, new = content(six_steps(**changed), name)
        return changes(content(six_steps(), name)[1], new, step)

    assert said("d", d__separator="+") == ["separator ' ' -> '+'"]
    assert said("f", f__factor=0.25) == ["factor 1 -> 0.25"]
    assert said("a", a__style={"upper": True}) == ["style.upper False -> True"]
    assert said("c", a__text="z") == ["input a changed"]
    assert said("d", a__text="z", d__separator="+") == ["separator ' ' -> '+'", "input c changed"]
