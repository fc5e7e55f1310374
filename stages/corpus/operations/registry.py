"""The operations by name. Users' packages add operations by the entry points `bloomline.operations`.

`python -m stages.corpus.operations.registry` prints the reference tables of docs/operations.md.
"""

from __future__ import annotations

from typing import Annotated

from pydantic.fields import FieldInfo

from stages.base import External
from stages.corpus.operations.operation import Operation
from stages.registry import ChosenBy, Registry

# By the groups of the documentation, in the order in which a source usually lists operations.
GROUPS: dict[str, dict[str, str]] = {
    "Extraction and repair": {
        "extract_html": "stages.corpus.operations.html_extraction:ExtractHtml",
        "repair_unicode": "stages.corpus.operations.text_repair:RepairUnicode",
        "normalise": "stages.corpus.operations.text_repair:Normalise",
        "white_space": "stages.corpus.operations.text_repair:WhiteSpace",
        "replacement_characters": "stages.corpus.operations.text_repair:ReplacementCharacters",
    },
    "Lines and passages": {
        "remove_lines": "stages.corpus.operations.line_removal:RemoveLines",
        "remove_substrings": "stages.corpus.operations.line_removal:RemoveSubstrings",
        "remove_references": "stages.corpus.operations.line_removal:RemoveReferences",
        "newlines_to_spaces": "stages.corpus.operations.text_repair:NewlinesToSpaces",
        "split_sentences": "stages.corpus.operations.text_repair:SplitSentences",
    },
    "Size": {
        "words": "stages.corpus.operations.size:Words",
        "characters": "stages.corpus.operations.size:Characters",
        "bytes": "stages.corpus.operations.size:Bytes",
    },
    "Language": {
        "language": "stages.corpus.operations.language_check:IdentifyLanguage",
    },
    "Quality": {
        "roots_modifiers": "stages.corpus.operations.roots_filters:RootsModifiers",
        "roots_quality": "stages.corpus.operations.roots_filters:RootsQuality",
        "gopher_quality": "stages.corpus.operations.gopher:GopherQuality",
        "gopher_repetition": "stages.corpus.operations.gopher:GopherRepetition",
        "fineweb_quality": "stages.corpus.operations.web:FinewebQuality",
        "c4_quality": "stages.corpus.operations.web:C4Quality",
        "code_quality": "stages.corpus.operations.code_quality:CodeQuality",
        "perplexity": "stages.corpus.operations.perplexity:Perplexity",
        "quality": "stages.corpus.operations.quality:Quality",
    },
    "Rights and wishes": {
        "license": "stages.corpus.operations.metadata_filters:License",
        "urls": "stages.corpus.operations.metadata_filters:Urls",
        "paths": "stages.corpus.operations.metadata_filters:Paths",
        "removals": "stages.corpus.operations.metadata_filters:Removals",
    },
    "Personal data": {
        "redact_pii": "stages.corpus.operations.pii_redaction:RedactPii",
    },
}

OPERATIONS = Registry(
    "bloomline.operations",
    "an operation",
    Operation,
    {name: target for group in GROUPS.values() for name, target in group.items()},
)

AnyOperation = Annotated[Operation, ChosenBy(OPERATIONS, "operation")]


def reference() -> str:
    """The tables of docs/operations.md: every built-in operation with its description, parameters and defaults."""
    return "\n\n".join(_group(title, list(group)) for title, group in GROUPS.items())


def _group(title: str, names: list[str]) -> str:
    rows = ["| operation | what it does | parameters |", "|---|---|---|"]
    for operation in map(OPERATIONS.load, names):
        fields = {name: field for name, field in operation.model_fields.items() if name != "operation"}
        parameters = ", ".join(f"`{name}{_default(name, field)}`" for name, field in fields.items())
        text = " ".join((operation.__doc__ or "").split())
        rows.append(f"| `{operation.model_fields['operation'].default}` | {text} | {parameters} |".replace("||", "| |"))
    return "\n".join((f"### {title}", "", *rows))


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.default
    if isinstance(value, External):
        value = next(iter(value.model_dump().values()))
    if isinstance(value, tuple):
        value = [list(item) if isinstance(item, tuple) else item for item in value]
    return f": {'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"


if __name__ == "__main__":
    print(reference())
