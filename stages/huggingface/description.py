"""What the files of a model's directory say about it, apart from its weights: read together, since each completes or
contradicts another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.document_start import starting_with, tokenizer_start
from stages.artifacts.tokenizer import Tokenizer
from stages.huggingface.families import Family, read_config
from stages.huggingface.model_directory import CONFIG, CONFIG_LIMIT_BYTES, TOKENIZER, read_json
from stages.huggingface.special_tokens import SETTINGS, read_special_tokens, refuse_unknown_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LoadedTokenizer

    from stages.model.config import DecoderConfig


@dataclass(frozen=True)
class Description:
    """A model's family, config, tokenizer and chat template. `notes`: where the files disagree, and what is used."""

    family: Family
    config: DecoderConfig
    tokenizer: LoadedTokenizer
    tokenizer_changed: bool  # it begins a text in another way than tokenizer.json
    chat_template: str | None
    notes: tuple[str, ...]


def read_description(directory: Path) -> Description:
    """Raises StageError if a file is missing or not valid, if files contradict each other, or if the decoder does not
    compute the model."""
    tokenizer = Tokenizer(directory).load()
    tokens = read_special_tokens(directory, tokenizer)
    values = read_json(directory / CONFIG, CONFIG_LIMIT_BYTES)
    family, config = read_config(tokens.completed(values), str(directory / CONFIG))
    refuse_unknown_tokens(directory, values, config.vocab_size, tokenizer)
    notes = list(tokens.disagreements(values))
    start = found = tokenizer_start(tokenizer)
    bos = tokens.ids.get("bos", config.bos_token_id)
    if tokens.begins and not found and bos is not None:
        start = (bos,)
    elif tokens.begins is False:
        start = ()
    if start != found:
        does, says = ("puts no token", "true") if start else (f"puts {tokenizer.id_to_token(found[0])}", "false")
        notes.append(f"{TOKENIZER} {does} before a text, but {SETTINGS} says add_bos_token: {says}, which is used")
        tokenizer = starting_with(tokenizer, start)
    config = config.model_copy(update={"document_start": start})
    return Description(family, config, tokenizer, start != found, tokens.chat_template, tuple(notes))
