"""The special tokens and the chat template that the directory of a model names in addition to `config.json`.

All of these files are optional. Those that exist must agree with the tokenizer.

generation_config.json     bos_token_id, eos_token_id, pad_token_id
tokenizer_config.json      bos_token, eos_token, pad_token; added_tokens_decoder; add_bos_token; chat_template
special_tokens_map.json    bos_token, eos_token, pad_token, if the file before does not name them
chat_template.jinja        the chat template, if it is in a separate file

`transformers` ends a text at the tokens of `generation_config.json`, and at those of `config.json` if there is no such
file. Here a text ends at all tokens that either of them names: a chat model often has the end of a turn in one of them
only, and a text has ended at either token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import StageError
from stages.huggingface.model_directory import CONFIG, GENERATION, TOKENIZER, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SETTINGS, SPECIAL, TEMPLATE = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
SETTINGS_LIMIT_BYTES, TEMPLATE_LIMIT_BYTES = 16 << 20, 1 << 20
KINDS = ("bos", "eos", "pad")


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens that are named, each mapping by "bos", "eos" and "pad", and the chat template."""

    ids: Mapping[str, int]  # in the files of the tokenizer
    generation: Mapping[str, tuple[int, ...]]  # in generation_config.json
    begins: bool | None  # add_bos_token: whether the first token of a text is "bos"; None: not said
    chat_template: str | None

    def completed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a `config.json` with the ids that the other files add: those that it does not have, and further
        end tokens."""
        completed = dict(values)
        for kind in KINDS:
            name, other = f"{kind}_token_id", self.ids.get(kind)
            own, generation = values.get(name), self.generation[kind]
            if kind == "eos":
                named = own if isinstance(own, list) else [] if own in (None, -1) else [own]
                first = named or ([] if other is None else [other])
                completed[name] = first + [one for one in generation if one not in first]
            elif own in (None, -1):
                completed[name] = next(iter(generation), None) if other is None else other
        return completed

    def disagreements(self, values: Mapping[str, Any]) -> Iterator[str]:
        """A message for each token for which a `config.json` has another id. That of `config.json` is used."""
        for kind, index in self.ids.items():
            said = values.get(f"{kind}_token_id")
            if said not in (None, -1) and index not in (said if isinstance(said, list) else [said]):
                yield f"{kind}_token_id is {said} in {CONFIG}, {index} in the tokenizer; that of {CONFIG} is used"


def token_files(directory: Path) -> list[Path]:
    """Those of the optional files that exist."""
    return [directory / name for name in (GENERATION, SETTINGS, SPECIAL, TEMPLATE) if (directory / name).is_file()]


def read_special_tokens(directory: Path, tokenizer: Tokenizer) -> SpecialTokens:
    """Raises StageError if a file is not valid or names tokens that the tokenizer does not have."""
    generation, settings, special = (
        read_json(directory / name, SETTINGS_LIMIT_BYTES) if (directory / name).is_file() else {}
        for name in (GENERATION, SETTINGS, SPECIAL)
    )
    _check_added(directory / SETTINGS, settings.get("added_tokens_decoder") or {}, tokenizer)
    ids = {}
    for kind in KINDS:
        for name, values in ((SETTINGS, settings), (SPECIAL, special)):
            token = values.get(f"{kind}_token")
            if token is not None:
                ids[kind] = _id_of(directory / name, f"{kind}_token", token, tokenizer)
                break
    begins = settings.get("add_bos_token")
    if begins not in (None, True, False):
        raise StageError(f"{directory / SETTINGS}: add_bos_token is {begins!r}; expected true, false or null")
    of_generation = {kind: token_ids(directory / GENERATION, generation, kind) for kind in KINDS}
    return SpecialTokens(ids, of_generation, begins, _chat_template(directory, settings))


def token_ids(path: Path, values: Mapping[str, Any], kind: str) -> tuple[int, ...]:
    """The ids of a special token in a JSON file; none if it is null or, as in old files, -1. Raises StageError."""
    found = values.get(f"{kind}_token_id")
    ids = found if isinstance(found, list) else [] if found in (None, -1) else [found]
    if not all(type(one) is int and one >= 0 for one in ids) or (len(ids) > 1 and kind != "eos"):
        expected = "a token id, a list of them" if kind == "eos" else "a token id"
        raise StageError(f"{path}: {kind}_token_id is {found!r}; expected {expected} or null")
    return tuple(ids)


def refuse_unknown_tokens(directory: Path, values: dict[str, Any], rows: int, tokenizer: Tokenizer) -> None:
    """Raise StageError if a file of the directory names a token that the model does not have.

    values: of `config.json`. rows: of the embedding.
    """
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= rows:
        raise StageError(
            f"{directory / TOKENIZER}: the tokenizer has {largest + 1} tokens, the embedding only {rows} rows "
            f"(vocab_size in {CONFIG}): save the tokenizer that the model was trained with, or resize the embedding"
        )
    generation = directory / GENERATION
    files = {CONFIG: values}
    if generation.is_file():
        files[GENERATION] = read_json(generation, SETTINGS_LIMIT_BYTES)
    for file, content in files.items():
        for kind in KINDS:
            for index in token_ids(directory / file, content, kind):
                where = f"{directory / file}: {kind}_token_id is {index}"
                if index >= rows:
                    raise StageError(f"{where}, but the model has only {rows} tokens (vocab_size in {CONFIG})")
                if kind == "eos" and tokenizer.id_to_token(index) is None:
                    raise StageError(f"{where}, which {TOKENIZER} does not have: its last token is {largest}")


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
