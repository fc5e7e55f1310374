"""Every operation by name. To add one: a class with `operation: Literal["name"] = "name"` in a module beside this, and
a place in `AnyOperation`; docs/operations.md is made by `python -m stages.corpus.operations.registry`."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

from stages.base import External
from stages.corpus.operations.code_quality import CodeQuality
from stages.corpus.operations.gopher import GopherQuality, GopherRepetition
from stages.corpus.operations.html_extraction import ExtractHtml
from stages.corpus.operations.language_check import IdentifyLanguage
from stages.corpus.operations.line_removal import RemoveLines, RemoveReferences, RemoveSubstrings
from stages.corpus.operations.metadata_filters import License, Paths, Removals, Urls
from stages.corpus.operations.operation import Operation
from stages.corpus.operations.perplexity import Perplexity
from stages.corpus.operations.pii_redaction import RedactPii
from stages.corpus.operations.roots_filters import RootsModifiers, RootsQuality
from stages.corpus.operations.size import Bytes, Characters, Words
from stages.corpus.operations.text_repair import (
    NewlinesToSpaces,
    Normalise,
    RepairUnicode,
    ReplacementCharacters,
    SplitSentences,
    WhiteSpace,
)
from stages.corpus.operations.web import C4Quality, FinewebQuality

# The groups are those of the documentation, in the order in which a source usually lists operations.
GROUPS: dict[str, tuple[type[Operation], ...]] = {
    "Extraction and repair": (
        ExtractHtml,
        RepairUnicode,
        Normalise,
        WhiteSpace,
        ReplacementCharacters,
    ),
    "Lines and passages": (RemoveLines, RemoveSubstrings, RemoveReferences, NewlinesToSpaces, SplitSentences),
    "Size": (Words, Characters, Bytes),
    "Language": (IdentifyLanguage,),
    "Quality": (
        RootsModifiers,
        RootsQuality,
        GopherQuality,
        GopherRepetition,
        FinewebQuality,
        C4Quality,
        CodeQuality,
        Perplexity,
    ),
    "Rights and wishes": (License, Urls, Paths, Removals),
    "Personal data": (RedactPii,),
}

AnyOperation = Annotated[
    ExtractHtml
    | RepairUnicode
    | Normalise
    | WhiteSpace
    | ReplacementCharacters
    | RemoveLines
    | RemoveSubstrings
    | RemoveReferences
    | NewlinesToSpaces
    | SplitSentences
    | Words
    | Characters
    | Bytes
    | IdentifyLanguage
    | RootsModifiers
    | RootsQuality
    | GopherQuality
    | GopherRepetition
    | FinewebQuality
    | C4Quality
    | CodeQuality
    | Perplexity
    | License
    | Urls
    | Paths
    | Removals
    | RedactPii,
    Field(discriminator="operation"),
]

OPERATIONS: dict[str, type[Operation]] = {
    operation.model_fields["operation"].default: operation for operation in get_args(get_args(AnyOperation)[0])
}


def reference() -> str:
    """The tables of docs/operations.md: every operation with what it does, its parameters and their defaults."""
    return "\n\n".join(_group(title, operations) for title, operations in GROUPS.items())


def _group(title: str, operations: tuple[type[Operation], ...]) -> str:
    rows = ["| operation | what it does | parameters |", "|---|---|---|"]
    for operation in operations:
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
