"""The special tokens and the chat template that the directory of a model names in addition to `tokenizer.json`.

All of these files are optional. Those that exist must agree with the tokenizer.

tokenizer_config.json      bos_token, eos_token, pad_token; added_tokens_decoder; chat_template
special_tokens_map.json    bos_token, eos_token, pad_token, if the first file does not name them
chat_template.jinja        the chat template, if it is in a separate file
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import StageError
from stages.huggingface.model_directory import TOKENIZER, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SETTINGS, SPECIAL, TEMPLATE = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
SETTINGS_LIMIT_BYTES, TEMPLATE_LIMIT_BYTES = 16 << 20, 1 << 20
KINDS = ("bos", "eos", "pad")


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the special tokens that are named, by "bos", "eos" and "pad", and the chat template."""

    ids: Mapping[str, int]
    chat_template: str | None

    def completed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a `config.json`, with the ids that it does not have added."""
        found = {f"{kind}_token_id": index for kind, index in self.ids.items()}
        return found | {name: value for name, value in values.items() if value is not None or name not in found}

    def disagreements(self, values: Mapping[str, Any]) -> Iterator[str]:
        """A message for each token for which a `config.json` has another id. That of `config.json` is used."""
        for kind, index in self.ids.items():
            said = values.get(f"{kind}_token_id")
            if said is not None and index not in (said if isinstance(said, list) else [said]):
                yield f"{kind}_token_id is {said} in config.json, {index} in the tokenizer; that of config.json is used"


def token_files(directory: Path) -> list[Path]:
    """Those of the optional files that exist."""
    return [directory / name for name in (SETTINGS, SPECIAL, TEMPLATE) if (directory / name).is_file()]


def read_special_tokens(directory: Path, tokenizer: Tokenizer) -> SpecialTokens:
    """Raises StageError if a file is not valid or names tokens that the tokenizer does not have."""
    settings, special = (
        read_json(directory / name, SETTINGS_LIMIT_BYTES) if (directory / name).is_file() else {}
        for name in (SETTINGS, SPECIAL)
    )
    _check_added(directory / SETTINGS, settings.get("added_tokens_decoder", {}), tokenizer)
    ids = {}
    for kind in KINDS:
        for name, values in ((SETTINGS, settings), (SPECIAL, special)):
            token = values.get(f"{kind}_token")
            if token is not None:
                ids[kind] = _id_of(directory / name, f"{kind}_token", token, tokenizer)
                break
    return SpecialTokens(ids, _chat_template(directory, settings))


def _id_of(path: Path, name: str, token: object, tokenizer: Tokenizer) -> int:
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise StageError(f"{path}: {name} is {token!r}; expected a token or an object with its content")
    index = tokenizer.token_to_id(content)
    if index is None:
        raise StageError(
            f"{path}: {name} is {content!r}, which {TOKENIZER} does not have; save both files with the same tokenizer"
        )
    return int(index)


def _check_added(path: Path, added: object, tokenizer: Tokenizer) -> None:
    if not isinstance(added, dict):
        raise StageError(f"{path}: added_tokens_decoder is not an object")
    for index, token in added.items():
        content = token.get("content") if isinstance(token, dict) else None
        found = tokenizer.id_to_token(int(index)) if isinstance(index, str) and index.isdecimal() else None
        if content is None or found != content:
            raise StageError(
                f"{path}: token {index} is {content!r} in added_tokens_decoder, but {found!r} in {TOKENIZER}; save "
                "both files with the same tokenizer"
            )


def _chat_template(directory: Path, settings: Mapping[str, Any]) -> str | None:
    path = directory / TEMPLATE
    if path.is_file():
        try:
            if path.stat().st_size > TEMPLATE_LIMIT_BYTES:
                raise StageError(f"{path} is larger than {TEMPLATE_LIMIT_BYTES} bytes: not a chat template")
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StageError(f"{path} cannot be read as UTF-8 text: {error}") from None
    found = settings.get("chat_template")
    if isinstance(found, list):  # several templates, each with a name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
        if found is None:
            raise StageError(f"{directory / SETTINGS}: chat_template has several templates, but none is named default")
    if found is not None and not isinstance(found, str):
        raise StageError(f"{directory / SETTINGS}: chat_template is not a text")
    return found
