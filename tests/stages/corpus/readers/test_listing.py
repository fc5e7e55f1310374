"""Which files globs find, under which names, and what their folders say about them."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import StageError
from stages.corpus.readers.csv_files import Csv
from stages.corpus.readers.file_systems import FileReader
from stages.corpus.readers.files import Files
from stages.corpus.readers.html_files import Html
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.text_files import Text
from tests.stages.corpus.readers.test_bad_files import read, texts


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(*paths: Path | str, exclude: tuple[str, ...] = ()) -> list[str]:
    return [part.name for part in Text(paths=[str(path) for path in paths], exclude=exclude).parts()]


def digest_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_brackets_may_be_part_of_a_name(tmp_path: Path) -> None:
    write(tmp_path, "a[1].txt", "a1.txt", "in[2]/b.txt", "in2/c.txt")
    assert names(tmp_path / "a[1].txt") == ["a1.txt", "a[1].txt"]
    assert names(tmp_path / "in[2]" / "*.txt") == ["in2/c.txt", "in[2]/b.txt"]
    (tmp_path / "a1.txt").unlink()
    assert names(tmp_path / "a[1].txt") == ["a[1].txt"]
    assert names(tmp_path / "a[!1].txt", tmp_path / "in2/*") == ["c.txt"]


def test_two_colons_may_be_part_of_a_name(tmp_path: Path) -> None:
    write(tmp_path, "a::b.txt")
    assert texts(read(Text(paths=[str(tmp_path / "*.txt")]))) == [b"a::b.txt"]


def test_a_folder_stands_for_everything_in_it(tmp_path: Path) -> None:
    write(tmp_path, "in[1]/a.txt", "in[1]/deep/er/b.txt", "other.txt")
    for path in (tmp_path / "in[1]", f"{tmp_path}/in[1]/", tmp_path / "in[1]" / "**"):
        assert names(path) == ["a.txt", "deep/er/b.txt"] if "**" not in str(path) else True
    write(tmp_path, "in[1]/picture.png")
    with pytest.raises(StageError, match=r"cannot read .*picture\.png.*\.txt, \.md, \.rst \(each also with \.gz"):
        names(tmp_path / "in[1]")
    assert names(tmp_path / "in[1]", exclude=("*.png",)) == ["a.txt", "deep/er/b.txt"]


def test_links_in_circles_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "s/a.txt", "s/deep/b.txt")
    for link in ("l1", "l2", "deep/l3"):
        (tmp_path / "s" / link).symlink_to(tmp_path / "s")
    (tmp_path / "s" / "c.txt").symlink_to("a.txt")
    assert names(tmp_path / "s" / "**" / "*.txt") == ["a.txt", "deep/b.txt"]
    assert names(tmp_path / "s" / "**" / "deep" / "**" / "*.txt") == ["deep/b.txt", "deep/l3/a.txt"]
    assert names(tmp_path / "s" / "*" / "*.txt") == ["deep/b.txt", "l1/a.txt"]


def test_markers_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "part.txt", "_SUCCESS", "_committed_123", ".part.txt", ".part.txt.crc", ".git/x.txt", "_kept.txt")
    assert names(tmp_path / "*") == ["_kept.txt", "part.txt"]
    assert names(tmp_path / "**" / "*") == ["_kept.txt", "part.txt"]
    assert names(tmp_path / ".*.txt") == [".part.txt"]
    with pytest.raises(StageError, match="no file matches"):
        names(tmp_path / "_SUCCESS")


def test_a_path_at_which_there_is_no_file_is_refused_among_others(tmp_path: Path) -> None:
    write(tmp_path, "one.txt")
    fsspec.filesystem("memory").pipe("/misspelled/one.txt", b"one")
    for root in (str(tmp_path), "memory://misspelled"):
        missing = f"{root}/nope.txt"
        for paths in ((f"{root}/one.txt", missing), (missing, f"{root}/*.txt")):
            with pytest.raises(StageError) as refused:
                Text(paths=paths).parts()
            assert str(refused.value) == f"reader.paths: no file matches {missing}"
        assert [part.name for part in Text(paths=(f"{root}/*.txt", f"{root}/*.text")).parts()] == ["one.txt"]


def test_a_remote_folder_is_listed_as_a_local_one(tmp_path: Path) -> None:
    files = ["a.txt", "b/c.txt", "_SUCCESS", ".hidden.txt", "d/[1].txt"]
    write(tmp_path, *files)
    memory = fsspec.filesystem("memory")
    for name in files:
        memory.pipe(f"/listing/{name}", name.encode())
    for pattern in ("", "/**/*", "/*", "/d/[1].txt", "/*/*.txt"):
        assert names(f"memory://listing{pattern}") == names(f"{tmp_path}{pattern}"), pattern


def test_files_are_left_out_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.txt", "b.tmp.txt", "drafts/c.txt", "deep/drafts/d.txt", "deep/e.txt")
    every = tmp_path / "**" / "*.txt"
    assert names(every, exclude=("*.tmp.*",)) == ["a.txt", "deep/drafts/d.txt", "deep/e.txt", "drafts/c.txt"]
    assert names(every, exclude=("*.tmp.*", "drafts")) == ["a.txt", "deep/e.txt"]
    assert names(every, exclude=(f"{tmp_path}/drafts/**", f"{tmp_path}/*.tmp.txt")) == [
        "a.txt", "deep/drafts/d.txt", "deep/e.txt",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert names("**/*.txt", exclude=("deep/**/*.txt",)) == ["a.txt", "b.tmp.txt", "drafts/c.txt"]
    with pytest.raises(StageError, match=r"no file matches .* that \*\.txt does not exclude"):
        names(every, exclude=("*.txt",))
    one = Text(paths=["a.txt"]).digest(digest_file)
    assert Text(paths=["*.txt"], exclude=("b*",)).digest(digest_file) == one


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "A.JSONL").write_text('{"text": "a"}\n')
    (tmp_path / "B.Txt").write_text("b")
    (tmp_path / "C.TSV.GZ").write_bytes(gzip.compress(b"text\tother\nc\td\n"))
    pq.write_table(pa.table({"text": ["p"]}), tmp_path / "D.PARQUET")
    (tmp_path / "E.NOTE").write_text("e")
    assert texts(read(Files(paths=[str(tmp_path / "[A-D]*")]))) == [b"a", b"b", b"c", b"p"]
    assert texts(read(Text(paths=[str(tmp_path / "E.NOTE")], endings=(".Note",)))) == [b"e"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_members_of_an_archive_are_files(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "in", "a.txt", "deep/b.txt", "c.png")
    (tmp_path / "in" / "d.txt.gz").write_bytes(gzip.compress(b"packed"))
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("a.txt", "deep/b.txt", "c.png", "d.txt.gz"):
                archive.write(tmp_path / "in" / name, name)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            for name in ("a.txt", "deep/b.txt", "c.png", "d.txt.gz"):
                tar.add(tmp_path / "in" / name, name)
    protocol = kind.partition(".")[0]
    with pytest.raises(StageError, match=rf"read what is in the archive as {protocol}://\*\*/\*\.txt::{path}"):
        Text(paths=[str(path)]).parts()
    reader = Text(paths=[f"{protocol}://**/*.txt*::{path}"])
    found = read(reader)
    assert texts(found) == [b"a.txt", b"packed", b"deep/b.txt"]
    assert [each.path for each in found] == [f"x.{kind}/a.txt", f"x.{kind}/d.txt.gz", f"x.{kind}/deep/b.txt"]
    assert texts(read(Text(paths=[f"{protocol}://deep/b.txt::{tmp_path}/*.{kind}"]))) == [b"deep/b.txt"]
    digest = reader.digest(digest_file)
    os.rename(path, tmp_path / "other")
    (tmp_path / "other").rename(path)
    assert Text(paths=[f"{protocol}://**/*.txt*::{path}"]).digest(digest_file) == digest


def test_a_member_of_a_relative_archive_is_read_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    monkeypatch.chdir(tmp_path)
    reader = Text(paths=["zip://*.txt::x.zip"])
    (part,) = reader.parts()
    monkeypatch.chdir("/")
    assert texts(list(reader.candidates(part, 100))) == [b"text"]
    cached = Text(paths=[f"simplecache::file://{tmp_path}/*.zip"], endings=(".zip",))
    assert [part.name for part in cached.parts()] == ["x.zip"]
    assert len(texts(read(cached))[0]) == (tmp_path / "x.zip").stat().st_size


def test_folders_give_labels(tmp_path: Path) -> None:
    for language in ("en", "pt%20BR"):
        write(
            tmp_path,
            f"language={language}/license=MIT/a.txt",
            f"language={language}/b.html",
            f"lang={language}/c.jsonl",
        )
    (tmp_path / "language=en" / "d.jsonl").write_text('{"text": "d"}\n{"text": "e", "language": "fr"}\n')
    (tmp_path / "lang=en" / "c.jsonl").write_text('{"text": "c"}\n')
    pq.write_table(pa.table({"text": ["p"]}), tmp_path / "lang=en" / "p.parquet")

    def labels(reader: FileReader) -> list[tuple[str, str]]:
        return [(each.language, each.license) for each in read(reader)]

    assert labels(Text(paths=[str(tmp_path / "**" / "*.txt")])) == [("en", "MIT"), ("pt BR", "MIT")]
    assert labels(Html(paths=[str(tmp_path / "language=en" / "*.html")])) == [("en", "")]
    lines = JsonLines(paths=[str(tmp_path / "language=en")], exclude=("*.txt", "*.html"))
    assert labels(lines) == [("en", ""), ("fr", "")]
    mapped = Files(paths=[str(tmp_path / "lang=en" / "*")], fields={"language": "lang"}, keep=("lang",))
    assert labels(mapped) == [("en", ""), ("en", "")]
    assert [each.kept for each in read(mapped)] == [{"lang": "en"}] * 2
    plain = Text(paths=[str(tmp_path / "language=en" / "license=MIT" / "a.txt")])
    before = plain.digest(digest_file)
    (tmp_path / "language=en").rename(tmp_path / "language=fr")
    moved = Text(paths=[str(tmp_path / "language=fr" / "license=MIT" / "a.txt")])
    assert moved.digest(digest_file) != before  # the label is part of what is read


TEXT_TYPES = {
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "large": pa.large_string(),
    "view": pa.string_view(),
    "binary": pa.binary(),
    "large binary": pa.large_binary(),
    "binary view": pa.binary_view(),
}


@pytest.mark.parametrize("kind", TEXT_TYPES)
@pytest.mark.parametrize("nested", [False, True])
def test_texts_of_a_table_may_have_any_type_of_text(tmp_path: Path, kind: str, nested: bool) -> None:
    values = ["été", None, "two", ""]
    if kind == "dictionary":
        column = pa.array(values).dictionary_encode()
    else:
        column = pa.array([value and value.encode() for value in values], pa.binary()).cast(TEXT_TYPES[kind])
    table = pa.table({"meta": pa.StructArray.from_arrays([column], ["text"])} if nested else {"text": column})
    pq.write_table(table.append_column("language", pa.array(["fr", "en", "en", "en"])), tmp_path / "t.parquet")
    reader = Parquet(paths=[str(tmp_path / "t.parquet")], text_field="meta.text" if nested else "text")
    found = read(reader)
    assert [each.data for each in found] == ["été".encode(), b"", b"two", b""]
    assert [each.refused is not None for each in found] == [False, True, False, False]
    assert [each.language for each in found] == ["fr", "", "en", "en"]


def test_a_column_of_another_type_is_named_with_its_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [["a"]], "meta": [{"body": "b"}]}), tmp_path / "t.parquet")
    with pytest.raises(StageError, match=r"its columns: text list<element: string>, meta struct.*meta\.body string"):
        read(Parquet(paths=[str(tmp_path / "t.parquet")]))


def test_a_text_may_be_within_another_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"meta": {"text": "one"}}\n{"meta.text": "whole name", "meta": {"text": "no"}}\n{"meta": "x"}\n{"meta": {}}\n'
    )
    found = read(JsonLines(paths=[str(tmp_path / "a.jsonl")], text_field="meta.text"))
    assert [each.data for each in found] == [b"one", b"whole name", b"", b""]


def test_quotation_marks_may_be_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlanguage\n"Quoted" at the start\ten\n"not closed\tfr\nplain\tde\n')
    with pytest.raises(StageError, match="ends within quotes"):
        read(Csv(paths=[str(tmp_path / "a.tsv")]))
    for kind in (Csv, Files):
        reader = kind(paths=[str(tmp_path / "a.tsv")], quoting="none")
        found = read(reader)
        assert texts(found) == [b'"Quoted" at the start', b'"not closed', b"plain"]
        assert [each.language for each in found] == ["en", "fr", "de"]


TREE = st.lists(
    st.lists(st.sampled_from(["a", "b", "c.txt", "_d.txt", ".e.txt"]), min_size=1, max_size=4).map("/".join),
    min_size=1, max_size=8,
)  # fmt: skip
PATTERN = st.lists(st.sampled_from(["**", "*", "a", "b", "?", "*.txt", "[ab]"]), min_size=1, max_size=4).map("/".join)


@settings(max_examples=60, deadline=None)
@given(tree=TREE, pattern=PATTERN)
def test_globs_match_what_those_of_python_match(
    tmp_path_factory: pytest.TempPathFactory, tree: list[str], pattern: str
) -> None:
    import glob

    root = tmp_path_factory.mktemp("tree")
    for name in tree:
        path = root / name
        if any(parent.is_file() for parent in path.parents) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    whole = str(root / pattern)
    if os.path.isdir(whole):
        return
    expected = {path for path in glob.glob(whole, recursive=True) if os.path.isfile(path)}
    if all(os.path.basename(path).startswith("_") or path.endswith(".txt") for path in expected) and expected:
        found = {part.url for part in Text(paths=[whole]).parts()}
        assert found == {path for path in expected if path.endswith(".txt")}
