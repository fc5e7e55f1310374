"""The sizes of the pages of a Parquet file, from their headers, before anything of them is decompressed.

A page can be a million times smaller than what it decodes to, and the sizes in the footer of a file need not be true.
Arrow decompresses what the headers of pages say, so these are what is read here. The headers are Thrift structs in the
compact protocol: github.com/apache/parquet-format, `PageHeader` in parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

HEADER_BYTES = 1 << 14  # read at first: a header holds a few numbers and the statistics of the page
LONGEST_HEADER_BYTES = 16 << 20  # as in Arrow
MAX_DEPTH = 8

# Fields of PageHeader and of the struct that describes the kind of the page.
UNCOMPRESSED, COMPRESSED, DATA, DICTIONARY, DATA_V2 = 2, 3, 5, 7, 8
VALUES = 1

# Types of the compact protocol.
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
INTEGERS = (4, 5, 6)


@dataclass(frozen=True)
class Page:
    """A page of a column in a row group."""

    size: int  # bytes, decompressed
    values: int  # of the column, nulls included; of a dictionary: its entries
    is_dictionary: bool


def pages_of(file: IO[bytes], column: Any) -> Iterator[Page]:
    """The pages of a column chunk. `column`: its metadata, a pyarrow ColumnChunkMetaData.

    Raises ValueError if what is there is not a page.
    """
    starts = (column.data_page_offset, column.dictionary_page_offset)
    position: int = min(start for start in starts if start)
    end = position + column.total_compressed_size
    values = 0
    while position < end and values < column.num_values:
        header, size = _header(file, position)
        kind: dict[int, Any] = next((header[name] for name in (DATA, DATA_V2, DICTIONARY) if name in header), {})
        page = Page(_number(header, UNCOMPRESSED), _number(kind, VALUES) if kind else 0, DICTIONARY in header)
        values += 0 if page.is_dictionary else page.values
        yield page
        position += size + _number(header, COMPRESSED)


def _number(fields: dict[int, Any], name: int) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or value < 0:
        raise ValueError("the header of a page is damaged")
    return value


def _header(file: IO[bytes], position: int) -> tuple[dict[int, Any], int]:
    """The fields of the header at a position by their numbers, and its length."""
    length = HEADER_BYTES
    while True:
        file.seek(position)
        content = file.read(length)
        struct = _Struct(content)
        try:
            return struct.fields(0), struct.position
        except IndexError:
            if len(content) < length or length >= LONGEST_HEADER_BYTES:
                raise ValueError("the header of a page is truncated") from None
            length *= 8


class _Struct:
    """Reads a struct in the compact protocol. Raises IndexError at the end of the content, ValueError for damage."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def fields(self, depth: int) -> dict[int, Any]:
        """Integers and structs by the numbers of their fields; other fields are skipped."""
        if depth > MAX_DEPTH:
            raise ValueError("the header of a page is nested too deeply")
        found: dict[int, Any] = {}
        name = 0
        while head := self._byte():
            name = name + (head >> 4) if head >> 4 else self._integer()
            value = self._value(head & 15, depth)
            if value is not None:
                found[name] = value
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in INTEGERS:
            return self._integer()
        if kind == STRUCT:
            return self.fields(depth + 1)
        if kind == BINARY:
            self._skip(self._varint())
        elif kind in (BYTE, DOUBLE):
            self._skip(1 if kind == BYTE else 8)
        elif kind in (LIST, SET):
            head = self._byte()
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                if head & 15 in (TRUE, FALSE):
                    self._skip(1)
                else:
                    self._value(head & 15, depth + 1)
        elif kind not in (TRUE, FALSE):
            raise ValueError("the header of a page is damaged")
        return None

    def _byte(self) -> int:
        self._skip(1)
        return self._content[self.position - 1]

    def _skip(self, size: int) -> None:
        self.position += size
        if self.position > len(self._content):
            raise IndexError

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("the header of a page is damaged")

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
