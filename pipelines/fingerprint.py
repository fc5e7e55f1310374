"""What a step's result depends on, in canonical form, and its hash.

In: the stage's name and version (for a user's stage that declares no version, the digest of its package's source), its
identity fields that differ from their defaults, the digests of external content, the fingerprints of its inputs. Out:
paths, hosts, worker counts, anything marked `Runtime`. A value without a canonical form is an error, never a `repr`.
Fields at their default are left out, so that adding a field with a default to a stage does not disturb what was made
before; the tag of a union is always kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.errors import BloomlineError
from pipelines.graph import Step
from pipelines.redaction import shown_values
from pipelines.stage_values import shown_stage_values
from stages.base import Artifact, Edge, External, RuntimeMarker, StageError
from stages.registry import SOURCE_KEY, code_identity, package_of

LOCATIONS = ("path", "paths")  # the fields of external content that say where it is
FIRST_VERSION = "1"  # of a config value's code: left out, like a field at its default

DigestFile = Callable[[Path], str]
Payload = dict[str, Any]


def payload(step: Step, inputs: Mapping[str, str], digest_file: DigestFile) -> Payload:
    """What the step's result depends on. `inputs`: step name -> fingerprint, of every step that feeds it.

    Raises TypeError for a field value that has no canonical form, BloomlineError for external content that is missing.
    """
    return {
        "stage": step.stage_name,
        **code_identity(type(step.stage)),
        "fields": _fields(step.stage, f"steps.{step.name}", digest_file, package_of(type(step.stage))),
        "inputs": {key: inputs[edge.step] for key, edge in step.edges},
    }


def shown_payload(content: Payload, step: Step) -> Payload:
    """A payload as it may be shown and stored: a value of the environment or a secret as its reference and a digest."""
    return {**content, "fields": shown_values(content["fields"], step.shown, marked=True)}


def fingerprint(content: Payload) -> str:
    """The SHA-256 of the canonical JSON of a payload, in hexadecimal."""
    # A path in a text field may have bytes that are not UTF-8.
    return hashlib.sha256(canonical_json(content).encode("utf-8", "surrogatepass")).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def changes(old: Payload, new: Payload, step: Step, old_values: Mapping[str, Any] = {}) -> list[str]:
    """What differs between two payloads of one step, one short phrase a difference; inputs come last.

    `old_values`: the fields of the stage to which `old` belongs, as the store has them. A payload has only a digest of
    external content, which changes with the options for reading it too.
    """
    found = []
    if old["stage"] != new["stage"]:
        return [f"stage {old['stage']} -> {new['stage']}"]
    if old["version"] != new["version"]:
        found.append(f"version of stage {step.stage_name} {old['version']} -> {new['version']}")
    sources = _sources(old), _sources(new)
    shared = sources[0].keys() & sources[1].keys()
    found += [f"the source of {name} changed" for name in sorted(shared) if sources[0][name] != sources[1][name]]
    before, after = _aligned(_flat(_without_sources(old["fields"])), _flat(_without_sources(new["fields"])))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            if key.endswith(".external"):
                place = key.removesuffix(".external")
                found += _options_changed(place, old_values, step) or [f"the content of {place} changed"]
            else:
                found.append(f"{key} {_shown(before, key, step)} -> {_shown(after, key, step)}")
    producers = dict(step.edges)
    inputs = sorted(old["inputs"].keys() | new["inputs"].keys())
    differ = [key for key in inputs if old["inputs"].get(key) != new["inputs"].get(key)]
    found += [f"input {producers[key].step if key in producers else key} changed" for key in differ]
    if not found:  # a user's class declares a version that it inherited before, or no longer does
        found = [f"{name} is no longer identified by its source" for name in sorted(sources[0].keys() - shared)]
        found += [f"{name} is now identified by its source" for name in sorted(sources[1].keys() - shared)]
    return found


def _options_changed(place: str, old_values: Mapping[str, Any], step: Step) -> list[str]:
    """What differs in the fields of external content, but for those that only say where it is."""
    content = _at(step.stage, place)
    before, after = _at(old_values, place), _at(shown_stage_values(step), place)
    if not (isinstance(content, External) and isinstance(before, Mapping) and isinstance(after, Mapping)):
        return []
    names = [
        name
        for name, field in type(content).model_fields.items()
        if name in before and name not in LOCATIONS
        if not any(isinstance(mark, RuntimeMarker) for mark in field.metadata)
        if not isinstance(getattr(content, name), Path)
    ]
    # An empty mapping has no value to compare with those that it has been given.
    given = [{name: values[name] for name in names if values[name] != {}} for values in (before, after)]
    old, new = _aligned(*(_flat(values, place) for values in given))
    return [
        f"{key} {_shown(old, key, step)} -> {_shown(new, key, step)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _at(value: Any, place: str) -> Any:
    """The value at a place of a stage or of its fields, such as `sources[0].reader`; None if there is none."""
    for part in re.findall(r"[^.\[\]]+", place):
        if isinstance(value, BaseModel):
            value = getattr(value, part, None)
        elif isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _sources(value: Any) -> dict[str, str]:
    """The digest of every package whose source is part of a payload, wherever it is in it."""
    if isinstance(value, list):
        return {name: digest for item in value for name, digest in _sources(item).items()}
    if not isinstance(value, Mapping):
        return {}
    inner = {name: digest for item in value.values() for name, digest in _sources(item).items()}
    return {**inner, **value.get(SOURCE_KEY, {})}


def _without_sources(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_sources(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _without_sources(item) for key, item in value.items() if key != SOURCE_KEY}
    return value


def _fields(model: BaseModel, where: str, digest_file: DigestFile, package: str | None) -> dict[str, Any]:
    kept = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if any(isinstance(mark, RuntimeMarker) for mark in field.metadata) or _is_edge(value):
            continue
        canonical = _canonical(value, f"{where}.{name}", digest_file, package)
        if _is_tag(field) or not _is_default(field, value, canonical, package):
            kept[name] = canonical
    return kept


def _canonical(value: Any, where: str, digest_file: DigestFile, package: str | None) -> Any:
    """A value in canonical form. `package`: the user's package whose stage or config holds it.

    The version, or the source, of that stage or config speaks for the configs of the same package within it.
    """
    if isinstance(value, External):
        try:
            return {"external": value.digest(digest_file)}
        except StageError as error:
            raise BloomlineError(f"{where}: {error}") from None
    if isinstance(value, BaseModel):
        own = package_of(type(value))
        fields = _fields(value, where, digest_file, own or package)
        version = getattr(value, "version", FIRST_VERSION)
        code = code_identity(type(value)) if own not in (None, package) else {"version": version}
        return {**fields, **{key: part for key, part in code.items() if part != FIRST_VERSION}}
    if isinstance(value, Enum):
        return _canonical(value.value, where, digest_file, package)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _canonical(item, f"{where}.{key}", digest_file, package) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_canonical(item, f"{where}.{index}", digest_file, package) for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((_canonical(item, where, digest_file, package) for item in value), key=canonical_json)
    raise TypeError(
        f"{where}: a {type(value).__name__} ({value!r}) has no canonical form, so it can't be part of a fingerprint; "
        "make the field Runtime if it does not change the result, or External if it names content"
    )


def _is_edge(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(_is_edge(item) for item in value.values())
    if isinstance(value, tuple | list):
        return bool(value) and all(_is_edge(item) for item in value)
    return isinstance(value, Edge | Artifact)


def _is_tag(field: FieldInfo) -> bool:
    """Whether the field tells the members of a union apart: a Literal of one value."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _is_default(field: FieldInfo, value: Any, canonical: Any, package: str | None) -> bool:
    if field.is_required() or isinstance(value, External):
        return False  # external content counts even where its fields are at their defaults
    default = field.get_default(call_default_factory=True)
    if value == default:
        return True
    # Equal but for Runtime fields, or a list where validation makes a tuple: the same in canonical form. Defaults
    # hold no External, so there is nothing to digest.
    return bool(_canonical(default, "", _no_file, package) == canonical)


def _no_file(path: Path) -> str:
    raise TypeError(f"a default refers to a file: {path}")


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {
            name: leaf
            for part, item in value.items()
            for name, leaf in _flat(item, f"{key}.{part}".lstrip(".")).items()
        }
    return {key: value} if key else {}


def _aligned(old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flat fields, lists that differ entry by entry; where one is longer, with the entries that the other has not."""
    for key in [key for key in old if isinstance(old[key], list) and isinstance(new.get(key), list)]:
        one, other = old[key], new[key]
        if one == other:
            continue
        if len(one) == len(other):
            del old[key], new[key]
            entries = ({f"{key}[{place}]": item for place, item in enumerate(items)} for items in (one, other))
            inner = _aligned(*map(_flat, entries))
            old, new = old | inner[0], new | inner[1]
        else:
            old[key] = [item for item in one if item not in other]
            new[key] = [item for item in other if item not in one]
    return old, new


def _shown(fields: Mapping[str, Any], key: str, step: Step) -> str:
    """The value of a flattened field as people write it; a field that was left out is at its default."""
    value: Any
    if key in fields:
        value = fields[key]
    else:
        model: Any = type(step.stage)
        *path, last = key.split(".")
        for part in path:
            field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
            model = field.annotation if field else None
        field = model.model_fields.get(last) if model is not None and hasattr(model, "model_fields") else None
        if field is None or field.is_required():
            return "(none)"
        value = field.get_default(call_default_factory=True)
    return f"{value:g}" if isinstance(value, float) else repr(value)
