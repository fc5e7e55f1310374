"""All operations are alike: named, documented, pure, and refused at once when they are misspelt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipelines import validation
from stages.base import Config, edges
from stages.corpus.operations.operation import Apply, Draft, Drop, Operation
from stages.corpus.operations.registry import GROUPS, OPERATIONS, AnyOperation, reference
from tests.stages.corpus.operations.support import made

DOCS = Path(__file__).parents[4] / "docs" / "operations.md"
# What operations need that have no default for it.
NEEDED = {
    "remove_lines": {"lists": ["code", "html_spans"]},
    "remove_substrings": {"substrings": ["subscribe now"]},
    "license": {"deny": ["GPL-*"]},
    "paths": {"deny": ["*.min.js"]},
    "urls": {"deny_hosts": ["spam.example"]},
}
TRIED = sorted(OPERATIONS.builtins.keys() - {"perplexity", "quality", "removals"})


def test_every_operation_is_in_one_group_under_its_own_name() -> None:
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(OPERATIONS.builtins)
    for name in grouped:
        operation = OPERATIONS.load(name)
        assert operation.model_fields["operation"].default == name
        assert operation.__doc__, name


def test_the_documentation_has_every_operation_and_parameter() -> None:
    assert reference() in DOCS.read_text(), (
        "docs/operations.md is out of date: paste what python -m stages.corpus.operations.registry prints"
    )


@pytest.mark.parametrize("name", TRIED)
def test_an_operation_is_a_pure_function(name: str) -> None:
    one, other = (made(name, **NEEDED.get(name, {})).function() for _ in range(2))
    for text in (
        "",
        " \n",
        "A plain sentence, and that is it. " * 30,
        "<p>x</p>\r\n\ufffd\x00 @me 1.2.3.4",
        "ἐν ἀρχῇ 中文",
    ):
        draft = Draft(text, path="a/b.txt", language="en", license="MIT")
        assert one(draft) == other(draft) == one(draft)
        assert draft.text == text


@settings(max_examples=40)
@given(text=st.text(max_size=400), language=st.sampled_from(["", "en", "zhs", "vi", "python", "xx", "pt_BR"]))
def test_no_text_makes_an_operation_fail(text: str, language: str) -> None:
    for function in _functions().values():
        found = function(Draft(text, path="p", language=language))
        assert isinstance(found, Draft | Drop)


# What the operations have in common that change a text, by what a second time would do, and by what they may add.
IDEMPOTENT = ("normalise", "white_space", "remove_lines", "remove_references", "newlines_to_spaces", "roots_modifiers",
              "redact_pii", "split_sentences")  # fmt: skip
NEVER_LONGER = ("white_space", "remove_lines", "remove_substrings", "remove_references", "newlines_to_spaces",
                "roots_modifiers", "c4_quality")  # fmt: skip
CHANGING = {*IDEMPOTENT, *NEVER_LONGER, "extract_html", "repair_unicode"}

pieces = st.sampled_from(
    ["the", "of", "a", "http://x.org/y", "www.z", "anna@b.org", "@anna", "8.8.8.8", "{", "<span", "1.", "Dr.", "End.",
     "é", "e\u0301", "\u212b", "中文。", "नमस्ते।", "[1]", "javascript", "x" * 60, "-", "…", "?!", "\u200b", "\xa0",
     "\u2028", "\x07", "\t", "\r\n", "\n", "\n\n\n\n", "  ", "PI:EMAIL", "a1b2c3d4e5"]
)  # fmt: skip
mixed = st.lists(pieces, max_size=40).flatmap(
    lambda found: st.sampled_from(["", " ", "\n"]).map(lambda by: by.join(found))
)


@settings(max_examples=200)
@given(text=mixed | st.text(max_size=200), language=st.sampled_from(["", "en", "fr", "zhs"]))
def test_operations_keep_what_they_have_in_common(text: str, language: str) -> None:
    draft = Draft(text, path="p", language=language)
    for name, function in _functions().items():
        found = function(draft)
        if isinstance(found, Drop):
            continue
        if name not in CHANGING:
            assert found.text == text, f"{name} chooses, and changes nothing"
        if name in NEVER_LONGER:
            assert len(found.text) <= len(text), name
        if name in IDEMPOTENT:
            again = function(found)
            assert isinstance(again, Draft)
            assert again.text == found.text, f"{name}, twice"


def _functions() -> dict[str, Apply]:
    if not _MADE:
        _MADE.update({name: made(name, **NEEDED.get(name, {})).function() for name in TRIED})
    return _MADE


_MADE: dict[str, Apply] = {}


class _Listed(Config):
    operations: tuple[AnyOperation, ...]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"operation": "gopher_qualty"}, "Did you mean 'gopher_quality'?"),
        ({"operation": "words", "minimun": 3}, "Did you mean 'minimum'?"),
        ({"operation": "words", "minimum": 9, "maximum": 3}, "nothing would be kept"),
        ({"operation": "remove_lines"}, "nothing to remove"),
        ({"operation": "remove_substrings", "substrings": [""]}, "an empty substring"),
        ({"operation": "license"}, "nothing would be dropped: set allow or deny"),
        ({"operation": "roots_quality", "parameters": "rootz"}, "no table 'rootz'"),
        ({"operation": "roots_quality", "parameters": {"changes": {"en": {"min_word": 1}}}}, "min_word"),
        ({"operation": "language", "minimums": {"english": 0.5}}, "'english' is not a language of the corpus"),
        ({"operation": "redact_pii", "replacement": "<{what}>"}, "expected a string that matches"),
        ({"operation": "perplexity", "model": "ngram"}, "no bound is set"),
        ({"operation": "perplexity", "model": "ngram", "maximum": 1, "maximum_percentile": 9}, "contradict each other"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(entry: dict[str, Any], said: str) -> None:
    values = {"operations": [entry]}
    with pytest.raises(ValidationError) as caught:
        _Listed.model_validate(values)
    problems = validation.problems("steps.corpus.sources.web", _Listed, caught.value, values)
    assert said in "\n".join(map(str, problems))


def test_a_language_model_is_an_edge_of_the_stage() -> None:
    entry = {"operation": "perplexity", "model": "ngram", "maximum_percentile": 99}
    listed = _Listed(operations=[{"operation": "words"}, entry])
    assert [(key, edge.step) for key, edge in edges(listed)] == [("operations.1.model", "ngram")]  # type: ignore[arg-type]


def test_listing_operations_loads_no_heavy_library() -> None:
    heavy = ("torch", "numpy", "pyarrow", "regex", "ftfy", "trafilatura", "pycld2", "emoji", "safetensors")
    script = f"import sys; import stages.corpus.operations.registry; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_operations_survive_the_way_to_a_worker_as_json() -> None:
    adapter: TypeAdapter[Operation] = TypeAdapter(AnyOperation)
    for name in TRIED:
        operation = made(name, **NEEDED.get(name, {}))
        assert adapter.validate_json(operation.model_dump_json()) == operation
