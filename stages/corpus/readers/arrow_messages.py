"""The sizes to which the messages of an Arrow stream decompress, before anything of them is decompressed.

A message is metadata, which is a FlatBuffer, and a body of buffers. A compressed buffer begins with its decompressed
length, which Arrow allocates: arrow.apache.org/docs/format/Columnar.html, Message.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

DICTIONARY_BATCH, RECORD_BATCH = 2, 3
AS_IT_IS = -1  # the length of a buffer that compression would not have made smaller
BUFFER = struct.Struct("<qq")  # where it begins in the body, its length


def decoded_sizes(source: Any) -> Iterator[int]:
    """The decompressed bytes of each message of a stream. `source`: a pyarrow file.

    Raises ValueError if a message is damaged, and the errors of pyarrow.
    """
    import pyarrow as pa

    try:
        for message in pa.ipc.MessageReader.open_stream(source):
            yield _decoded_size(message.metadata.to_pybytes(), message.body)
    except struct.error:
        raise ValueError("the metadata of a message is damaged") from None


def _decoded_size(metadata: bytes, body: Any) -> int:
    (root,) = struct.unpack_from("<I", metadata)
    kind = _field(metadata, root, 1)
    batch = _target(metadata, _field(metadata, root, 2))
    if not kind or not batch or metadata[kind] not in (DICTIONARY_BATCH, RECORD_BATCH):
        return 0
    if metadata[kind] == DICTIONARY_BATCH:
        batch = _target(metadata, _field(metadata, batch, 1))
    buffers = _target(metadata, _field(metadata, batch, 2))
    if not buffers or not _field(metadata, batch, 3):  # without compression
        return len(body)
    (count,) = struct.unpack_from("<I", metadata, buffers)
    total = 0
    for start, length in BUFFER.iter_unpack(metadata[buffers + 4 : buffers + 4 + count * BUFFER.size]):
        if length:
            (decoded,) = struct.unpack_from("<q", memoryview(body), start)
            total += length if decoded == AS_IT_IS else decoded
    return total


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 if the table does not have it."""
    (back,) = struct.unpack_from("<i", metadata, table)
    (size,) = struct.unpack_from("<H", metadata, table - back)
    slot = 4 + 2 * number
    (offset,) = struct.unpack_from("<H", metadata, table - back + slot) if slot < size else (0,)
    return table + offset if offset else 0


def _target(metadata: bytes, field: int) -> int:
    """Where a field refers to; 0 for a field that is not there."""
    return field + struct.unpack_from("<I", metadata, field)[0] if field else 0
