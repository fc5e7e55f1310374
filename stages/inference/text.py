"""From text to tokens and back: prompts, incremental detokenization, and stop strings.

A byte-level token is a sequence of bytes, not of characters: one character can span several tokens. `TextStream`
emits a character only when all of its bytes have arrived, and never emits any part of a stop string.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence

from tokenizers import Tokenizer

from stages.artifacts.document_start import document_start
from stages.artifacts.encoding import encode
from stages.base import ArtifactError
from stages.model.config import DecoderConfig


def prompt_tokens(config: DecoderConfig, tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a prompt: those that begin a document, then those of the text. At least one.

    A model that begins with the text itself has nothing to read for an empty one: the end of the previous text is the
    token from which training predicts the first one of a document.
    """
    return [*document_start(config, tokenizer), *encode(tokenizer, text)] or [config.eos_token_id]


def byte_alphabet() -> dict[str, int]:
    """The byte for which each character of a byte-level vocabulary stands (GPT-2's printable alphabet, 256 entries)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if chr(byte) not in alphabet]
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(hidden)}


class Vocabulary:
    """A byte-level tokenizer with the bytes of each of its tokens. Raises ArtifactError if it is not byte-level."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.table = _token_bytes(tokenizer)  # by id; empty for special tokens and unused ids
        self.longest_token = max(map(len, self.table))

    def __len__(self) -> int:
        return len(self.table)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special tokens. Raises EncodingError."""
        return encode(self._tokenizer, text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens. Bytes that are not valid UTF-8 become U+FFFD."""
        return b"".join(self.table[token] for token in tokens).decode("utf-8", errors="replace")

    def name(self, token: int) -> str:
        """One token in the form of OpenAI's logprobs: as text, or as escaped bytes where it is not valid UTF-8."""
        data = self.table[token]
        if not data:
            return self._tokenizer.id_to_token(token) or ""
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
    if "ByteLevel" not in {part.get("type") for part in [decoder, *decoder.get("decoders", [])]}:
        raise ArtifactError("the tokenizer is not byte-level: its decoder must be ByteLevel")
    alphabet = byte_alphabet()
    added = tokenizer.get_added_tokens_decoder()
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ArtifactError("the tokenizer has no tokens")
    table = [b""] * (max(vocabulary.values()) + 1)
    for token, index in vocabulary.items():
        if index in added:
            table[index] = b"" if added[index].special else token.encode()
            continue
        try:
            table[index] = bytes(alphabet[character] for character in token)
        except KeyError as error:
            raise ArtifactError(
                f"token {index} ({token!r}) is not byte-level: {error} is not in the byte alphabet"
            ) from None
    return table


class TextStream:
    """The text of one sequence as its tokens arrive.

    The concatenated results of `push` and `finish` are the text of all tokens (invalid UTF-8 replaced by U+FFFD) up to
    the first stop string, which is left out.
    """

    def __init__(self, table: list[bytes], stop: tuple[str, ...] = ()) -> None:
        self.stopped = False  # a stop string was found: the sequence is complete
        self.decoded_characters = 0  # of all tokens so far, whether emitted or held back
        self._table = table
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # decoded text that may be the beginning of a stop string

    def push(self, token: int) -> str:
        """Add the next token. Returns the text that can be shown now."""
        return self._show(self._decoder.decode(self._table[token]))

    def finish(self) -> str:
        """End the sequence. Returns the rest of its text."""
        shown = self._show(self._decoder.decode(b"", final=True))
        rest, self._held = self._held, ""
        return shown + rest

    def _show(self, text: str) -> str:
        if self.stopped:
            return ""
        self.decoded_characters += len(text)
        pending = self._held + text
        found = [position for stop in self._stop if (position := pending.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return pending[: min(found)]
        held = max((_overlap(pending, stop) for stop in self._stop), default=0)
        shown, self._held = pending[: len(pending) - held], pending[len(pending) - held :]
        return shown


def _overlap(text: str, stop: str) -> int:
    """The length of the longest suffix of `text` that is a proper prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
