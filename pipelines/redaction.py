"""What of a configuration may be shown and stored.

Three rules, each applied by the functions below to whatever is written or printed:

- A value that comes from the environment is shown as it is written: `${oc.env:NAME}`.
- The value of a key that names a secret (`store.options.secret`, `password`, `api_key`) is shown as `***`.
- An address is shown without its user information and its signatures.

Texts that come from elsewhere (errors of libraries, notes of stages) may quote such values. `redacted` removes those
that the configurations of this process hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.addresses import HIDDEN, redact_url

__all__ = [
    "HIDDEN",
    "is_secret",
    "redact_url",
    "redacted",
    "remember",
    "shown_config",
    "shown_override",
    "shown_values",
]

_SECRET = re.compile(
    r"(.*_)?(secret|password|passwd|passphrase|credentials?|connection_string|authorization|env_vars"
    r"|(api|access|account|private|secret|signing|encryption)_?key"
    r"|(auth|access|session|sas|security|bearer|refresh|api)_?token)"
)
_SECRET_OPTION = re.compile(
    r"(.*_)?(key|token|cookie|username|user)"
)  # of a library, where such a name is a credential
_OPTIONS = {"options", "storage_options", "client_kwargs", "headers"}
_REFERENCE = re.compile(
    r"\$\{(oc\.env:\s*\w+\s*(,\s*(null|''|\"\")?\s*)?|[\w.]+)\}"
)  # without a default that is secret
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)")
_KEY_INSIDE = re.compile(r"[{,]\s*['\"]?(\w[\w.-]*)['\"]?\s*:")
_PLACES = {
    "name",
    "store.root",
    "store.state_directory",
    "cluster.address",
    "tracking.uri",
    "tracking.experiment",
}  # messages have to name them
SHORTEST_SECRET = 4  # characters: a shorter value would be found in every text
SHORTEST_VALUE = 8  # of the environment
LONGEST_KEY = 200  # lines

_hidden: dict[str, str] = {}  # value -> what is shown in its place


def is_secret(key: str) -> bool:
    """Whether a dotted key names a secret, or a value below one."""
    parts = [part.lower().replace("-", "_") for part in key.split(".")]
    in_options = False
    for part in parts:
        if _SECRET.fullmatch(part) or (in_options and _SECRET_OPTION.fullmatch(part)):
            return True
        in_options |= part in _OPTIONS
    return False


def shown_override(override: str) -> str:
    """An override of a command line as it may be shown and stored."""
    key, equals, value = override.partition("=")
    path = key.lstrip("+~")
    inside = [f"{path}.{name}" for name in _KEY_INSIDE.findall(value)]
    if equals and _is_literal(value.strip("'\"")) and any(map(is_secret, (path, *inside))):
        return f"{key}={HIDDEN}"
    return redact_url(override)


def is_redacted(override: str) -> bool:
    """Whether an override is one of which a part was hidden, so that it says less than it seems to."""
    key, _, value = override.partition("=")
    if value.strip("'\"") == HIDDEN:
        return is_secret(key.lstrip("+~"))
    filled = value.replace(f"={HIDDEN}", "=signature")
    return f"://{HIDDEN}@" in value or redact_url(filled) != filled


def shown_config(values: Any, key: str = "") -> Any:
    """A configuration whose references to the environment are not resolved, as it may be shown and stored.

    `key`: the dotted key of `values`.
    """
    if isinstance(values, Mapping):
        return {name: shown_config(value, _below(key, name)) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [shown_config(value, _below(key, place)) for place, value in enumerate(values)]
    if is_secret(key) and _is_literal(values):
        return HIDDEN
    return redact_url(values) if isinstance(values, str) else values


def holds_secrets(values: Any) -> bool:
    """Whether a configuration whose references are not resolved holds what may not be stored."""
    return bool(shown_config(values) != values)


def shown_values(values: Any, shown: Any, key: str = "", *, marked: bool = False) -> Any:
    """Checked values of a stage as they may be shown and stored. `shown`: what `shown_config` made of its fields.

    `marked`: what is not shown as it is gets a digest of its value, so that a change of it can be seen.
    """
    if isinstance(values, Mapping) and (isinstance(shown, Mapping) or not is_hiding(shown)):
        inner = shown if isinstance(shown, Mapping) else {}
        return {
            name: shown_values(value, inner.get(name), _below(key, name), marked=marked)
            for name, value in values.items()
        }
    if isinstance(values, list | tuple) and not is_hiding(shown):
        same = isinstance(shown, list) and len(shown) == len(values)
        parts = shown if same else [None] * len(values)
        return [
            shown_values(value, part, _below(key, place), marked=marked)
            for place, (value, part) in enumerate(zip(values, parts, strict=True))
        ]
    if isinstance(values, Mapping) and values.keys() == {"external"}:  # a digest of content
        return values
    found = shown if is_hiding(shown) else redacted(values) if isinstance(values, str) else values
    found = HIDDEN if is_secret(key) and not is_hiding(shown) and _is_literal(values) else found
    if found == values or not marked:
        return found
    return f"{found} (sha256 {hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]})"


def remember(values: Any, shown: Any, key: str = "") -> None:
    """Let `redacted` remove what a configuration holds: secrets, and values of the environment.

    `values`: resolved. `shown`: what `shown_config` made of the same configuration.
    """
    if isinstance(values, Mapping) and isinstance(shown, Mapping):
        for name in values:
            remember(values[name], shown.get(name), _below(key, name))
    elif isinstance(values, list) and isinstance(shown, list) and len(values) == len(shown):
        for place, (value, part) in enumerate(zip(values, shown, strict=True)):
            remember(value, part, _below(key, place))
    elif values is not None and not isinstance(values, bool | Mapping | list) and is_hiding(shown):
        secret = is_secret(key)
        if secret:
            _hide(str(values), shown, SHORTEST_SECRET)
        elif any(map(os.environ.get, _ENVIRONMENT.findall(shown))) and key not in _PLACES:
            _hide(str(values), shown, SHORTEST_VALUE)
        if key not in _PLACES:
            for name in _ENVIRONMENT.findall(shown):
                _hide(os.environ.get(name, ""), f"${{oc.env:{name}}}", SHORTEST_SECRET if secret else SHORTEST_VALUE)


def remember_overrides(overrides: Sequence[str]) -> None:
    """Let `redacted` remove the secrets in overrides, also if they never become a configuration."""
    for override in overrides:
        key, _, value = override.partition("=")
        if is_secret(key.lstrip("+~")) and _is_literal(value.strip("'\"")):
            _hide(value.strip("'\""), HIDDEN, SHORTEST_SECRET)


def redacted(text: str) -> str:
    """A text from elsewhere as it may be shown and stored."""
    for value in sorted(_hidden, key=len, reverse=True):
        if value in text:
            text = text.replace(value, _hidden[value])
    return redact_url(text)


def redacted_values(value: Any) -> Any:
    """JSON values with all of their texts as `redacted` makes them."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: redacted_values(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(inner) for inner in value]
    return value


def is_hiding(shown: Any) -> bool:
    """Whether a shown value stands for another one."""
    return isinstance(shown, str) and (HIDDEN in shown or "${" in shown)


def _hide(value: str, shown: str, shortest: int) -> None:
    # The path of something that exists is not a secret, and messages that name files below it have to be readable.
    if len(value) >= shortest and value != shown and not (shortest == SHORTEST_VALUE and os.path.exists(value)):
        _hidden[value] = shown
        # A key of several lines may be read line by line.
        _hidden.update({line: shown for line in value.splitlines()[:LONGEST_KEY] if len(line) >= SHORTEST_VALUE})


def _is_literal(value: Any) -> bool:
    """Whether a value of a secret is the secret itself, rather than nothing or a reference to it."""
    if isinstance(value, str):
        return value not in ("", "null", HIDDEN) and not _REFERENCE.fullmatch(value)
    return value is not None and not isinstance(value, bool | Mapping | list)


def _below(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
