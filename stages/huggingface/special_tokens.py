"""What a model's directory says of its tokens beside `tokenizer.json`: which end, begin and fill a text, and the chat
template. All of it is optional; what is there must agree with the tokenizer.

tokenizer_config.json      bos_token, eos_token, pad_token; added_tokens_decoder; chat_template
special_tokens_map.json    bos_token, eos_token, pad_token, where the first does not say
chat_template.jinja        the chat template, where it has a file of its own
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
class TokenFacts:
    """`ids`: of the tokens that are named, by "bos", "eos" and "pad"."""

    ids: Mapping[str, int]
    chat_template: str | None

    def completed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A `config.json` with the ids that it leaves open."""
        found = {f"{kind}_token_id": index for kind, index in self.ids.items()}
        return found | {name: value for name, value in values.items() if value is not None or name not in found}

    def disagreements(self, values: Mapping[str, Any]) -> Iterator[str]:
        """Where a `config.json` names another token, which is then the one that counts."""
        for kind, index in self.ids.items():
            said = values.get(f"{kind}_token_id")
            if said is not None and index not in (said if isinstance(said, list) else [said]):
                yield f"config.json says {kind}_token_id {said}, the tokenizer {index}: that of config.json is kept"


def token_files(directory: Path) -> list[Path]:
    """Those of the files that are there."""
    return [directory / name for name in (SETTINGS, SPECIAL, TEMPLATE) if (directory / name).is_file()]


def read_token_facts(directory: Path, tokenizer: Tokenizer) -> TokenFacts:
    """Raises StageError for a file that is no such file, or that names tokens which the tokenizer does not have."""
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
    return TokenFacts(ids, _chat_template(directory, settings))


def _id_of(path: Path, name: str, token: object, tokenizer: Tokenizer) -> int:
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise StageError(f"{path}: {name} is {token!r}, expected a token or an object with its content")
    index = tokenizer.token_to_id(content)
    if index is None:
        raise StageError(
            f"{path}: {name} is {content!r}, which {TOKENIZER} does not have: save both with one tokenizer"
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
                f"{path}: added_tokens_decoder says that token {index} is {content!r}, {TOKENIZER} that it is "
                f"{found!r}: save both with one tokenizer"
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
    if isinstance(found, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
        if found is None:
            raise StageError(f"{directory / SETTINGS}: chat_template has several templates, none named default")
    if found is not None and not isinstance(found, str):
        raise StageError(f"{directory / SETTINGS}: chat_template is no text")
    return found
