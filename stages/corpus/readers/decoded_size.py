"""Bounds on what a columnar file may decode to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.base import StageError
from stages.corpus.readers.file_systems import FilePart

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DECODED_BYTES = 1 << 29  # the default: pages of 1,024 texts of 500 kB, which some writers make
BATCH_BYTES = 128 << 20  # of rows that are decoded together


def decoded_error(part: FilePart, where: str, limit: int) -> StageError:
    return StageError(
        f"{part.url}: {where} decodes to more than {limit:,} bytes at once; if that is right, raise "
        "reader.max_decoded_bytes"
    )


def check_decoded(batch: pa.RecordBatch, limit: int, part: FilePart, where: str) -> None:
    """Raises StageError if the rows of a batch repeat the values of its dictionaries to more than `limit` bytes."""
    if sum(map(_repeated_bytes, batch.columns)) > limit:
        raise decoded_error(part, where, limit)


def _repeated_bytes(array: Any) -> int:
    """The bytes of the values of dictionaries, each as often as it is used."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_dictionary(array.type):
        lengths = pc.cast(pc.binary_length(array.dictionary), "int64") if _is_bytes(array.type.value_type) else None
        return 0 if lengths is None else pc.sum(pc.take(lengths, array.indices)).as_py() or 0
    if types.is_struct(array.type):
        return sum(_repeated_bytes(array.field(index)) for index in range(array.type.num_fields))
    if types.is_map(array.type):
        return _repeated_bytes(array.keys) + _repeated_bytes(array.items)
    if types.is_list(array.type) or types.is_large_list(array.type):
        return _repeated_bytes(array.values)
    return 0


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    checks = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(check(kind) for check in checks)
