"""The reference page of all stages, made from their classes.

python -m pipelines.reference > docs/reference/stages.md
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from pipelines.fields import Field, artifacts, choices, configs, fields, summary
from pipelines.graph import produces
from stages import registry
from stages.base import Stage

INTRODUCTION = """\
# Stages

This page is made from the code by `python -m pipelines.reference`; `bloomline stages NAME` shows the same in a
terminal. A field under *Identity* is part of what the result is: another value gives another fingerprint, and the step
runs again. A field under *Runtime* says how the work is done and never changes the result. Where the type of a field
is an artifact, its value in YAML is the name of the step that makes it.
"""


def page() -> str:
    """The page in Markdown: a section for every built-in stage, and one for every config in their fields."""
    stages = {name: registry.STAGES.load(name) for name in registry.STAGES.builtins}
    nested: dict[type[BaseModel], None] = {}
    for stage in stages.values():
        nested.update(dict.fromkeys(configs(stage)))
    parts = [INTRODUCTION, *(_stage(name, stage) for name, stage in stages.items())]
    parts.append("## Configs in the fields of stages\n")
    parts += [_config(kind) for kind in sorted(nested, key=lambda kind: (kind.__name__, kind.__module__))]
    for group in {choice.registry.group: choice for stage in stages.values() for choice in choices(stage)}.values():
        parts.append(f"## {group.registry.kind.partition(' ')[2].capitalize()}s\n\nChosen by `{group.key}`.\n")
        parts += [_config(group.registry.load(name), name) for name in sorted(group.registry.builtins)]
    return "\n".join(parts)


def _stage(name: str, stage: type[Stage]) -> str:
    reads = ", ".join(kind.__name__ for kind in artifacts(stage)) or "no artifact"
    facts = f"Reads {reads}; makes {produces(stage).__name__}. Code: `{stage.__module__}`."
    return f"## {name}\n\n{summary(stage)}\n\n{facts}\n" + _tables(fields(stage))


def _config(kind: type[BaseModel], name: str = "") -> str:
    return f"### {name or kind.__name__}\n\n{summary(kind)} Code: `{kind.__module__}`.\n" + _tables(fields(kind))


def _tables(found: Sequence[Field]) -> str:
    text = ""
    for title, is_runtime in (("Identity", False), ("Runtime", True)):
        rows = [field for field in found if field.is_runtime == is_runtime]
        if rows:
            text += f"\n| {title} | type | default | description |\n|---|---|---|---|\n"
            text += "".join(
                f"| `{field.name}` | {_code(field.type)} | {default} | {_cell(field.description)} |\n"
                for field in rows
                for default in [_code(field.default) or "required"]
            )
    return text


def _code(text: str) -> str:
    """Text in the font of code; a name in backquotes within it is in that font anyway."""
    return f"`{_cell(text.replace('`', ''))}`" if text else ""


def _cell(text: str) -> str:
    """Text that fits in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
