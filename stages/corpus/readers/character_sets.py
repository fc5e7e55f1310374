"""Character encodings as browsers read them (encoding.spec.whatwg.org): labels, byte order marks, decoding to UTF-8.

Bytes that an encoding does not define become U+FFFD; the bound `max_replacement_ratio` then decides about the text.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator

UTF8 = "utf-8"
# The longer marks first: that of UTF-16LE is the beginning of that of UTF-32LE.
MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LONGEST_MARK = 4
PIECE_BYTES = 1 << 16
REPLACED = "replacement"  # encodings that the standard does not decode, for the safety of readers

# The codecs of Python that decode most like the standard's decoders, where the names differ.
_CODECS = {
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "big5": "big5hkscs",
    "iso-2022-jp": "iso2022_jp_ext",
    "iso-8859-8-i": "iso8859-8",
    "windows-874": "cp874",
    "macintosh": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-user-defined": "latin-1",
}
_JIS = {"euc-jp": "euc_jp", "iso-2022-jp": "iso2022_jp_ext"}  # share the characters of Shift_JIS in the standard
# Characters that the standard decodes differently from Python: vertical punctuation and radicals that Unicode did not
# have when Python's table was made, and the signs of Windows in Big5.
_CORRECTIONS = {
    "gbk": str.maketrans(
        "\ue5e5\ue78d\ue78e\ue78f\ue790\ue791\ue792\ue793\ue794\ue795\ue796\ue7c7"
        "\ue81e\ue826\ue82b\ue82c\ue832\ue843\ue854\ue864",
        "\u3000\ufe10\ufe12\ufe11\ufe13\ufe14\ufe15\ufe16\ufe17\ufe18\ufe19\u1e3f"
        "\u9fb4\u9fb5\u9fb6\u9fb7\u9fb8\u9fb9\u9fba\u9fbb",
    ),
    "big5": str.maketrans("•､‾∼♁☉¥¢£", "‧﹑¯～⊕⊙￥￠￡"),
    "koi8-u": str.maketrans("╝╬", "ўЎ"),
    "x-user-defined": {code: 0xF780 + code - 0x80 for code in range(0x80, 0x100)},
}
_CORRECTIONS["gb18030"] = _CORRECTIONS["gbk"]


@dataclass(frozen=True)
class Encoding:
    """How to decode an encoding: a codec of Python, and the characters that the standard decodes differently."""

    codec: str
    corrections: Mapping[int, int] = field(default_factory=dict)

    def decode(self, data: bytes) -> str:
        """The text, with U+FFFD for bytes that are not of this encoding."""
        if self.codec == REPLACED:
            return "\ufffd" if data else ""
        text = data.decode(self.codec, _errors())
        return text.translate(self.corrections) if self.corrections else text

    def decoder(self) -> codecs.IncrementalDecoder:
        """A decoder for data that arrives in pieces, without the corrections."""
        return codecs.getincrementaldecoder("ascii" if self.codec == REPLACED else self.codec)(_errors())


@cache
def encoding_of(label: str) -> Encoding | None:
    """The encoding that a label stands for in the standard; None for an unknown label."""
    import webencodings

    found = webencodings.lookup(label)
    if found is None:
        return None
    if found.name in _JIS:
        return Encoding(_JIS[found.name], _jis_corrections())
    return Encoding(_CODECS.get(found.name, found.name), _CORRECTIONS.get(found.name, {}))


def marked(data: bytes) -> tuple[bytes, Encoding | None]:
    """The byte order mark at the beginning of `data`, and its encoding; empty and None without one."""
    return next(((mark, Encoding(codec)) for mark, codec in MARKS if data.startswith(mark)), (b"", None))


def utf8_bytes(data: bytes, label: str = UTF8) -> bytes:
    """Text as UTF-8 without its byte order mark, from the encoding of the mark, or else the declared one.

    UTF-8 is returned unchanged, with bytes that are wrong, for the text rules to find.
    """
    mark, found = marked(data)
    return _converted(data[len(mark) :], found or _declared(label))


def utf8_stream(stream: io.BufferedReader[Any], label: str = UTF8) -> io.BufferedReader[Any]:
    """A stream, which is at its beginning, as UTF-8. UTF-8 is the stream itself, with its byte order mark."""
    mark, found = marked(stream.peek(LONGEST_MARK)[:LONGEST_MARK])
    encoding = found or _declared(label)
    if encoding.codec == UTF8:
        return stream
    stream.read(len(mark))
    return io.BufferedReader(_Converted(stream, encoding), PIECE_BYTES)


def _declared(label: str) -> Encoding:
    encoding = Encoding(UTF8) if label == UTF8 else encoding_of(label) or _of_python(label)
    assert encoding is not None, f"{label} was checked with the configuration"
    return encoding


def _of_python(label: str) -> Encoding | None:
    """An encoding of text that is not one of web pages: UTF-32, code pages of DOS, ..."""
    try:
        b"a".decode(label, "replace")  # refuses codecs that are not of text
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    return Encoding(name)


def _known(label: str) -> str:
    if label != UTF8 and encoding_of(label) is None and _of_python(label) is None:
        raise ValueError(
            "expected an encoding: a label of encoding.spec.whatwg.org (for example windows-1251, "
            "shift_jis, utf-16le) or a text codec of Python"
        )
    return label


EncodingLabel = Annotated[str, AfterValidator(_known)]


def _converted(data: bytes, encoding: Encoding) -> bytes:
    return data if encoding.codec == UTF8 else encoding.decode(data).encode("utf-8", "replace")


class _Converted(io.RawIOBase):
    """A stream in another encoding as UTF-8."""

    def __init__(self, stream: io.BufferedReader[Any], encoding: Encoding) -> None:
        self._stream, self._encoding = stream, encoding
        self._decoder = encoding.decoder()
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            piece = self._stream.read(PIECE_BYTES)
            self._ended = not piece
            text = self._decoder.decode(piece, final=self._ended).translate(self._encoding.corrections)
            self._ready = text.encode("utf-8", "replace")
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


@cache
def _errors() -> str:
    """The name of the error handler, registered in this process."""
    name = "bloomline.whatwg"
    codecs.register_error(name, _undefined)
    return name


def _undefined(error: UnicodeError) -> tuple[str, int]:
    """What the standard decodes where Python's codec has nothing."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    start, codec = error.start, error.encoding
    byte, pair = error.object[start], error.object[start : start + 2]
    if codec in _JIS.values() and (found := _jis_character(*(each & 0x7F for each in pair.ljust(2, b"\0")))):
        return found, start + 2
    if codec == "big5hkscs" and len(pair) == 2 and len(found := pair.decode("cp950", "replace")) == 1:
        return found, start + 2
    if codec == "gb18030" and byte == 0x80:
        return "€", start + 1
    if codec.startswith(("cp125", "cp874", "charmap")) and 0x80 <= byte < 0xA0:
        return chr(byte), start + 1  # control characters, as in ISO 8859
    return "\ufffd", max(error.end, start + 1)


def _jis_character(lead: int, trail: int) -> str:
    """The character of two seven-bit bytes in JIS X 0208 with the additions of Windows; empty if there is none."""
    if not (0x21 <= lead <= 0x7E and 0x21 <= trail <= 0x7E):
        return ""
    row, cell = divmod((lead - 0x21) * 94 + trail - 0x21, 188)
    first, second = row + (0x81 if row < 0x1F else 0xC1), cell + (0x40 if cell < 0x3F else 0x41)
    return bytes((first, second)).decode("cp932", "ignore")


@cache
def _jis_corrections() -> dict[int, int]:
    """The characters for which Python's EUC-JP and the standard (as Shift_JIS of Windows) differ: "〜" is "～"."""
    found = {}
    for lead in range(0x21, 0x7F):
        for trail in range(0x21, 0x7F):
            ours = bytes((lead | 0x80, trail | 0x80)).decode("euc_jp", "ignore")
            theirs = _jis_character(lead, trail)
            if len(ours) == len(theirs) == 1 and ours != theirs:
                found[ord(ours)] = ord(theirs)
    return found
