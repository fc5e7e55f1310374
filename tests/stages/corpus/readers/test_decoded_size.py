"""Small files that decode to much are refused by name, or read in small batches."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import StageError
from stages.corpus.readers.arrow_messages import decoded_sizes
from stages.corpus.readers.csv_files import Csv
from stages.corpus.readers.datasets import Datasets
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.parquet_pages import pages_of
from stages.corpus.readers.reader import Candidate
from stages.corpus.readers.records import RecordReader
from stages.corpus.readers.text_files import Text

MEGABYTE = 1_000_000


def repeated(value: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([value]))


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A Parquet file whose dictionaries are written whatever their size."""
    options = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 1 << 30} | options
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(reader: RecordReader, max_bytes: int = MEGABYTE) -> list[Candidate]:
    return [candidate for part in reader.parts() for candidate in reader.candidates(part, max_bytes)]


def decoded_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are decoded from here on."""
    sizes: list[int] = []
    original = pq.ParquetFile.iter_batches

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        for batch in original(self, *arguments, **options):
            sizes.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    return sizes


def test_a_value_that_all_rows_repeat_is_decoded_for_few_rows_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "t.parquet", {"text": repeated("a" * 15 * MEGABYTE, 20)})
    assert path.stat().st_size < 2000
    sizes = decoded_batches(monkeypatch)
    assert [one.refused and one.refused.rule for one in read(Parquet(paths=[str(path)]))] == ["too_long"] * 20
    assert max(sizes) < 140 * MEGABYTE


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_page_that_decodes_to_too_much_is_refused_by_name(tmp_path: Path, use_dictionary: bool) -> None:
    tables = {"a.parquet": ["short"], "b.parquet": ["a" * 5 * MEGABYTE]}
    for name, texts in tables.items():
        parquet(tmp_path / name, {"text": texts}, use_dictionary=use_dictionary)
    with pytest.raises(StageError, match=r"b\.parquet: row group 0, column text decodes to more than 4,000,000 bytes"):
        read(Parquet(paths=[str(tmp_path)], max_decoded_bytes=4 * MEGABYTE))
    found = read(Parquet(paths=[str(tmp_path)], max_decoded_bytes=4 * MEGABYTE, bad_files="drop"))
    assert [one.refused and one.refused.rule for one in found] == [None, "bad_file"]
    assert len(read(Parquet(paths=[str(tmp_path)], max_decoded_bytes=6 * MEGABYTE))) == 2


@pytest.mark.parametrize(
    "values",
    [
        pa.ListArray.from_arrays([0, 5000], repeated("a" * MEGABYTE, 5000)),
        pa.array([[7] * 10 * MEGABYTE], pa.list_(pa.int32())),
        pa.array([[{"in": ["a" * MEGABYTE] * 600}]]),
        pa.array([[(str(number), "a" * MEGABYTE) for number in range(600)]], pa.map_(pa.string(), pa.string())),
    ],
    ids=["texts", "numbers", "nested", "map"],
)
def test_a_list_that_repeats_a_value_is_refused_by_name(tmp_path: Path, values: pa.Array) -> None:
    path = parquet(tmp_path / "t.parquet", {"text": ["one"], "many": values})
    assert path.stat().st_size < 20_000
    assert len(read(Parquet(paths=[str(path)]))) == 1  # the column is not read
    with pytest.raises(StageError, match=r"t\.parquet: row group 0.* decodes to more than 536,870,912 bytes"):
        read(Parquet(paths=[str(path)], keep=("many",)))


def test_lists_and_structs_are_kept_as_before(tmp_path: Path) -> None:
    rows = [{"text": "one", "tags": ["a", None, "a"], "meta": {"by": ["x"]}}, {"text": "two", "tags": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = read(Parquet(paths=[str(tmp_path)], keep=("tags", "meta")))
    assert [json.loads(one.kept["tags"] or "null") for one in found] == [["a", None, "a"], None]
    assert json.loads(found[0].kept["meta"]) == {"by": ["x"]}


@pytest.mark.parametrize(
    ("version", "codec", "dictionary"), [*itertools.product(["1.0", "2.0"], ["none", "zstd", "gzip"], [True, False])]
)
def test_the_pages_of_every_column_are_found(version: str, codec: str, dictionary: bool) -> None:
    rows = [{"text": f"row {n} " * 9, "n": n, "list": [n] * (n % 5), "in": {"a": str(n % 7)}} for n in range(3000)]
    file = io.BytesIO()
    options = {"data_page_version": version, "compression": codec, "use_dictionary": dictionary}
    pq.write_table(
        pa.Table.from_pylist(rows), file, row_group_size=1100, data_page_size=5000, write_page_checksum=True, **options
    )
    metadata = pq.ParquetFile(file).metadata
    for group, index in itertools.product(range(metadata.num_row_groups), range(metadata.num_columns)):
        column = metadata.row_group(group).column(index)
        pages = list(pages_of(file, column))
        assert sum(page.values for page in pages if not page.is_dictionary) == column.num_values
        assert any(page.is_dictionary for page in pages) == column.has_dictionary_page
        assert sum(page.size for page in pages) <= column.total_uncompressed_size


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_to_the_headers_is_one_clear_error(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.mktemp("damaged") / "t.parquet"
    pq.write_table(pa.table({"text": ["one", "two", "two"]}), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, 90))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read(Parquet(paths=[str(path)]))
    except StageError as error:
        assert "t.parquet" in str(error)  # noqa: PT017 - undamaged pages are read without one


def dataset(folder: Path, table: pa.Table, codec: str | None) -> Path:
    """A dataset as `save_to_disk` writes it."""
    folder.mkdir()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(str(folder / "data.arrow"), table.schema, options=options) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    return folder


def test_a_compressed_batch_of_a_dataset_is_bounded(tmp_path: Path) -> None:
    table = pa.table({"text": ["one"], "other": ["a" * 5 * MEGABYTE]})
    folder = dataset(tmp_path / "set", table, "zstd")
    with pytest.raises(StageError, match=r"data\.arrow: message 1 decodes to more than 4,000,000 bytes"):
        read(Datasets(paths=[str(folder)], max_decoded_bytes=4 * MEGABYTE))
    assert [one.data for one in read(Datasets(paths=[str(folder)]))] == [b"one"]


@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_sizes_of_arrow_messages_are_known_before_they_are_read(tmp_path: Path, codec: str | None) -> None:
    table = pa.table({"text": ["a" * 1000] * 500, "label": repeated("b" * 100, 500), "n": list(range(500))})
    folder = dataset(tmp_path / "set", table, codec)
    with pa.memory_map(str(folder / "data.arrow")) as file:
        sizes = list(decoded_sizes(file))
    assert len(sizes) == 3  # the schema, the dictionary, the rows
    assert sizes[1] == pytest.approx(100, abs=100)
    assert sizes[2] == pytest.approx(table.nbytes, rel=0.05)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
@pytest.mark.parametrize(("reader", "name"), [(JsonLines, "t.jsonl"), (Text, "t.txt")])
def test_a_compressed_bomb_is_counted_without_being_held(
    tmp_path: Path, reader: type[JsonLines] | type[Text], name: str, suffix: str
) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": partial(lzma.compress, preset=0),
        ".zst": zstandard.ZstdCompressor().compress,
    }
    (tmp_path / f"{name}{suffix}").write_bytes(packers[suffix](b"a" * 12 * MEGABYTE))
    made = reader.model_validate({"paths": [str(tmp_path)]})
    tracemalloc.start()
    try:
        (found,) = made.candidates(made.parts()[0], 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.refused and found.refused.rule, found.size) == ("too_long", 12 * MEGABYTE)
    assert peak < 9 * MEGABYTE


def test_an_xz_file_of_several_streams_is_whole(tmp_path: Path) -> None:
    stream = lzma.compress(b"text\n", preset=9)
    (tmp_path / "t.txt.xz").write_bytes(stream + bytes(8) + stream)
    made = Text(paths=[str(tmp_path)])
    assert [one.data for one in made.candidates(made.parts()[0], 1000)] == [b"text\ntext\n"]


def test_an_xz_file_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(b"text", preset=0))
    place = packed.index(b"\x21\x01", 12) + 2  # after the id of LZMA2 and the size of its properties: the dictionary
    packed[place] = 40  # 4 GiB
    end = 12 + (packed[12] + 1) * 4  # of the block's header, whose last four bytes are its checksum
    packed[end - 4 : end] = zlib.crc32(packed[12 : end - 4]).to_bytes(4, "little")
    (tmp_path / "t.txt.xz").write_bytes(packed)
    made = Text(paths=[str(tmp_path)])
    with pytest.raises(StageError, match=r"t\.txt\.xz cannot be read as \.xz: Memory usage limit exceeded"):
        list(made.candidates(made.parts()[0], 1000))


def test_a_header_of_very_many_columns_is_read_in_linear_time(tmp_path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(200_000))  # comparing each with all others takes minutes
    (tmp_path / "t.csv").write_text(f"text,{names},c7\nx\n")
    with pytest.raises(StageError, match="two columns 'c7'"):
        read(Csv(paths=[str(tmp_path)]))
