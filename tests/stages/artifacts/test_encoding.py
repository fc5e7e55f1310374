"""Tokenizers that fail at a text."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from stages.artifacts.encoding import EncodingError, encode, encode_batch, explained
from stages.artifacts.tokenizer import Tokenizer as TokenizerArtifact
from stages.base import ArtifactError
from tests.stages.inference.support import byte_level_tokenizer

TEXT = "a" * 40 + "b"


def backtracking() -> Tokenizer:
    """Its expression tries every way to cut a repetition of "a" that does not end the text."""
    tokenizer = byte_level_tokenizer()
    split = Split(Regex("(a+)+$"), "isolated")
    tokenizer.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    return tokenizer


def test_an_expression_that_does_not_end_is_an_error_with_its_remedy() -> None:
    tokenizer = backtracking()
    assert encode(tokenizer, "hello") == encode_batch(tokenizer, ["hello"])[0]
    message = "cannot encode .* (retry-limit-in-match over.*): a regular expression of its tokenizer.json"
    with pytest.raises(EncodingError, match=message.replace("(", r"\(.*").replace(")", r"\)")):
        encode(tokenizer, TEXT)
    with pytest.raises(EncodingError, match="one of 3 texts"):
        encode_batch(tokenizer, ["hello", TEXT, "hello"])


def test_an_expression_of_a_normalizer_too() -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.normalizer = Replace(Regex("(a+)+$"), "")
    with pytest.raises(EncodingError):
        encode(tokenizer, TEXT)


def test_what_is_not_an_error_of_the_library_is_raised_as_it_is() -> None:
    with pytest.raises(KeyboardInterrupt):
        explained(KeyboardInterrupt())


@pytest.mark.parametrize("expression", ["(", "(?=a)*", "a{99999999}", "[", "\\"])
def test_an_invalid_expression_is_refused_when_the_file_is_read(expression: str, tmp_path: Path) -> None:
    text = backtracking().to_str().replace('"(a+)+$"', '"' + expression.replace("\\", "\\\\") + '"')
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is not a tokenizer: Oniguruma error"):
        TokenizerArtifact(tmp_path).load()
