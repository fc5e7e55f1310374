import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from stages.base import ArtifactError
from stages.inference.text import TextStream, Vocabulary, byte_alphabet
from tests.stages.inference.support import SPECIAL, byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()
VOCABULARY = Vocabulary(TOKENIZER)

tokens = st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=40)


def streamed(sequence: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(VOCABULARY.table, stop)
    pieces = []
    for token in sequence:
        pieces.append(stream.push(token))
        if stream.stopped:
            return pieces
    return [*pieces, stream.finish()]


def test_the_alphabet_is_one_character_for_each_byte() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))


@given(tokens)
def test_the_stream_put_together_is_what_the_tokenizer_decodes(sequence: list[int]) -> None:
    assert "".join(streamed(sequence)) == TOKENIZER.decode(sequence, skip_special_tokens=True)
    assert VOCABULARY.decode(sequence) == TOKENIZER.decode(sequence, skip_special_tokens=True)


@given(st.text(max_size=30))
def test_a_valid_text_never_shows_half_a_character(text: str) -> None:
    alphabet = {byte: TOKENIZER.get_vocab()[character] for character, byte in byte_alphabet().items()}
    pieces = streamed([alphabet[byte] for byte in text.encode()])  # the worst case: one byte a token
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(tokens, st.lists(st.text("helo wrd,é", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_of_a_stop_string_is_ever_shown(sequence: list[int], stop: list[str]) -> None:
    text = VOCABULARY.decode(sequence)
    ends = [position for one in stop if (position := text.find(one)) >= 0]
    assert "".join(streamed(sequence, tuple(stop))) == (text[: min(ends)] if ends else text)


def test_text_is_held_back_only_while_it_may_become_a_stop_string() -> None:
    stream = TextStream([b"a", b"b", b"c", b"x"], ("abc",))
    assert [stream.push(token) for token in (0, 1, 3)] == ["", "", "abx"]
    assert [stream.push(token) for token in (0, 1, 2)] == ["", "", ""]
    assert stream.stopped


def test_special_tokens_have_a_name_but_no_text() -> None:
    assert [VOCABULARY.decode([index]) for index in range(len(SPECIAL))] == [""] * len(SPECIAL)
    assert [VOCABULARY.name(index) for index in range(len(SPECIAL))] == SPECIAL
    half = VOCABULARY.encode("é".encode()[:1].decode("latin-1"))[0]
    assert VOCABULARY.name(half).startswith("bytes:\\x")


def test_a_tokenizer_of_characters_is_refused() -> None:
    characters = Tokenizer(models.BPE({"a": 0, "日": 1}, []))
    with pytest.raises(ArtifactError, match="not byte-level"):
        Vocabulary(characters)
    characters.decoder = decoders.ByteLevel()
    with pytest.raises(ArtifactError, match="not in the byte alphabet"):
        Vocabulary(characters)
