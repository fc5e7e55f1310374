"""From tokens to text that may be shown: incremental detokenisation and stop strings.

A byte-level token is a run of bytes, not of characters: one character may be spread over several tokens. `TextStream`
emits a character only when all its bytes have come, and never any part of a stop string.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence

from tokenizers import Tokenizer

from stages.base import ArtifactError


def byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's printable alphabet, 256 entries)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if chr(byte) not in alphabet]
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(hidden)}


class Vocabulary:
    """A byte-level tokenizer, and the bytes of each of its tokens. Raises ArtifactError if its tokens are no bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.table = _token_bytes(tokenizer)  # by id; special tokens, and ids without a token, have no bytes
        self.longest_token = max(map(len, self.table))

    def __len__(self) -> int:
        return len(self.table)

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text).ids
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; bytes that are no characters become U+FFFD."""
        return b"".join(self.table[token] for token in tokens).decode("utf-8", errors="replace")

    def name(self, token: int) -> str:
        """One token for people, in OpenAI's way: bytes that are no characters by themselves are written out."""
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
            raise ArtifactError(f"token {index} ({token!r}) is not byte-level: {error} stands for no byte") from None
    return table


class TextStream:
    """The text of one sequence as its tokens come.

    What `push` and `finish` return, put together, is the text of all tokens (invalid UTF-8 replaced by U+FFFD), up to
    the first stop string, which is left out.
    """

    def __init__(self, table: list[bytes], stop: tuple[str, ...] = ()) -> None:
        self.stopped = False  # a stop string was met: the sequence is over
        self.decoded_characters = 0  # of all tokens so far, shown or held back
        self._table = table
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # decoded, but may be the beginning of a stop string

    def push(self, token: int) -> str:
        """Take the next token; the text that may be shown now."""
        return self._show(self._decoder.decode(self._table[token]))

    def finish(self) -> str:
        """The rest of the text: no more tokens will come."""
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
    """The length of the longest end of `text` that begins `stop`, without being all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
