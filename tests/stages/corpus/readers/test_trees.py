"""The readers of web pages, archives and source trees."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard

from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.html_files import Html
from stages.corpus.readers.licence_files import declared_licence, recognise
from stages.corpus.readers.source_code import Code
from stages.corpus.readers.text_files import Text
from stages.corpus.readers.warc import Warc
from tests.stages.corpus.readers.support import digest_file, read, seen
from tests.support import test_data

MIT = """MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files ... The above copyright notice
and this permission notice shall be included in all copies or substantial portions."""
BSD = """Redistribution and use in source and binary forms, with or without modification ...
* Redistributions in binary form must reproduce the above copyright notice"""


def test_folders_of_pages(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes("<p>\u00e9t\u00e9".encode())
    (tmp_path / "b.htm.gz").write_bytes(gzip.compress(b"<p>" + b"x" * 2000))
    assert seen(read(Html(paths=[str(tmp_path / "*")]))) == [
        ("<p>\u00e9t\u00e9".encode(), None, 8),
        (b"", "too_long", 2003),
    ]


def record(url: str, body: bytes, content_type: str = "text/html", status: str = "200 OK", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{extra}\r\n".encode()
    return warc_record("response", url, head + body, "application/http; msgtype=response")


def warc_record(kind: str, url: str, block: bytes, content_type: str) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:1>\r\nContent-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


ARCHIVE = [
    warc_record("warcinfo", "", b"software: test", "application/warc-fields"),
    record("http://a.org/1", "<p>caf\u00e9".encode("latin-1"), "text/html; charset=ISO-8859-1"),
    record("http://a.org/2", b"\x89PNG", "image/png"),
    record("http://a.org/3", b"gone", status="404 Not Found"),
    record("http://a.org/4", gzip.compress(b"<p>packed"), extra="Content-Encoding: gzip\r\n"),
    record("http://a.org/5", b"y" * 5000),
    warc_record("conversion", "http://a.org/6", "d\u00e9j\u00e0 extrait".encode(), "text/plain"),
]


@pytest.mark.parametrize("how", ["plain", "gzip", "a member a record"])
def test_pages_of_an_archive(tmp_path: Path, how: str) -> None:
    packed = {
        "plain": b"".join(ARCHIVE),
        "gzip": gzip.compress(b"".join(ARCHIVE)),
        "a member a record": b"".join(map(gzip.compress, ARCHIVE)),
    }
    (tmp_path / ("a.warc" if how == "plain" else "a.warc.gz")).write_bytes(packed[how])
    found = read(Warc(paths=[str(tmp_path / "a.*")]))
    assert seen(found) == [
        ("<p>caf\u00e9".encode(), None, 8),
        (b"", "not_a_page", 4),
        (b"", "http_status", 4),
        (b"<p>packed", None, 9),
        (b"", "too_long", 5000),
        ("d\u00e9j\u00e0 extrait".encode(), None, 14),
    ]
    assert [c.url for c in found] == [f"http://a.org/{n}" for n in range(1, 7)]
    assert [c.position for c in found] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"".join(ARCHIVE)[:-12], "is not a readable WARC file: record 6: it is truncated"),
        (b"garbage\n" * 100, "is not a readable WARC file: record 0"),
        (b"WARC/1.0\r\nnonsense\r\n\r\n", "is not a readable WARC file"),
    ],
)
def test_a_garbled_archive_is_a_clear_error(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.warc").write_bytes(data)
    with pytest.raises(StageError, match=rf"a\.warc {message}"):
        read(Warc(paths=[str(tmp_path / "a.warc")]))


def deflated(page: bytes, head: bool) -> bytes:
    packer = zlib.compressobj(wbits=15 if head else -15)
    return packer.compress(page) + packer.flush()


PAGE = b"<p>packed page, with enough in it to be cut in the middle</p>" * 20
ENCODED = {
    "gzip": gzip.compress(PAGE),
    "x-gzip": gzip.compress(PAGE),
    "br": pa.compress(PAGE, "brotli", asbytes=True),
    "zstd": zstandard.ZstdCompressor().compress(PAGE),
    "deflate": deflated(PAGE, head=True),
    "Deflate": deflated(PAGE, head=False),
}


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("how", ["whole", "chunked", "not encoded", "cut", "garbled"])
def test_pages_come_out_of_the_encoding_they_were_sent_in(tmp_path: Path, encoding: str, how: str) -> None:
    """A record that can't be read is counted, and the records after it are read."""
    body, extra = ENCODED[encoding], f"Content-Encoding: {encoding}\r\n"
    if how == "chunked":
        half = len(body) // 2
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:half], body[half:], b""))
        body, extra = body + b"after the last chunk", extra + "Transfer-Encoding: chunked\r\n"
    if how == "not encoded":
        body = PAGE
    if how == "cut":
        body = body[: len(body) // 2]
    if how == "garbled":
        body = b"\xff\xfe\xfd" * 100
    archive = record("http://a.org/1", body, extra=extra) + record("http://a.org/2", b"<p>next")
    (tmp_path / "a.warc").write_bytes(archive)
    first, second = read(Warc(paths=[str(tmp_path / "a.warc")]), max_bytes=5000)
    assert second.data == b"<p>next"
    if how in ("cut", "garbled"):
        assert first.refused == Drop("content_encoding", f"not {encoding.lower()}", encoding.lower())
        assert first.refused_bytes == len(body)
    else:
        assert first.data == PAGE


def test_a_page_is_bounded_when_it_is_decoded_and_an_unknown_encoding_counted(tmp_path: Path) -> None:
    bomb = gzip.compress(b"<" * 3_000_000)
    archive = [
        record("http://a.org/1", bomb, extra="Content-Encoding: gzip\r\n"),
        record("http://a.org/2", b"\x80\x81", extra="Content-Encoding: sdch\r\n"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(archive))
    found = read(Warc(paths=[str(tmp_path / "a.warc")]), max_bytes=5000)
    assert seen(found) == [(b"", "too_long", 3_000_000), (b"", "content_encoding", 2)]


def test_a_truncated_packed_archive_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, ARCHIVE))[:-9])
    with pytest.raises(StageError, match=r"a\.warc\.gz cannot be read as \.gz"):
        read(Warc(paths=[str(tmp_path / "a.warc.gz")]))


def test_source_trees_with_languages_and_licences(tmp_path: Path) -> None:
    tree = tmp_path / "project"
    files = {
        "LICENSE": MIT, "main.py": "print()", "src/a.cpp": "int x;", "src/notes.txt": "no code",
        "src/lib/COPYING": BSD, "src/lib/b.rs": "fn b() {}",
        "src/c.go": "// SPDX-License-Identifier: Apache-2.0 OR MIT\npackage c", ".git/d.py": "hidden",
        "node_modules/e.js": "dependency",
    }  # fmt: skip
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "link.py").symlink_to(tree / "main.py")
    reader = Code(paths=[str(tree)])
    assert [(c.path, c.language, c.license) for c in read(reader)] == [
        ("project/main.py", "python", "MIT"),
        ("project/src/a.cpp", "c++", "MIT"),
        ("project/src/c.go", "go", "Apache-2.0 OR MIT"),
        ("project/src/lib/b.rs", "rust", "BSD-2-Clause"),
    ]
    assert [c.path for c in read(Code(paths=[str(tree)], languages=["rust"]))] == ["project/src/lib/b.rs"]
    before = reader.digest(digest_file)
    (tree / "LICENSE").write_text("All rights reserved")
    assert reader.digest(digest_file) != before
    with pytest.raises(StageError, match="cobol"):
        Code(paths=[str(tree)], languages=["cobol"]).parts()
    with pytest.raises(StageError, match="is not a folder"):
        Code(paths=[str(tree / "main.py")]).parts()


@pytest.mark.timeout(20)
def test_a_tree_with_loops_and_pipes_is_read_once_and_never_waited_for(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "x.py").write_text("print(1)")
    (tree / "a" / "t.txt").write_text("text")
    (tree / "a" / "b" / "loop").symlink_to(tree)
    for name in ("self.py", "self.txt"):
        (tree / name).symlink_to(tree / name)
    for name in ("gone.py", "gone.txt"):
        (tree / name).symlink_to(tmp_path / "nothing")
    for name in ("pipe.py", "pipe.txt", "LICENSE"):
        os.mkfifo(tree / name)
    (tree / "folder.py").mkdir()
    (tree / "folder.txt").mkdir()
    assert [c.path for c in read(Code(paths=[str(tree)]))] == ["tree/a/x.py"]
    assert [c.data for c in read(Text(paths=[str(tree / "**" / "*.txt")]))] == [b"text"]


def test_licences_are_named_only_where_they_are_certain(tmp_path: Path) -> None:
    texts = {
        MIT: "MIT", BSD: "BSD-2-Clause", "GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007": "GPL-3.0",
        "GNU LESSER GENERAL PUBLIC LICENSE\n Version 2.1, February 1999": "LGPL-2.1",
        "Apache License\n Version 2.0, January 2004": "Apache-2.0", "All rights reserved.": "", "\xff": "",
        "SPDX-License-Identifier: Zlib": "Zlib",
    }  # fmt: skip
    for number, (text, name) in enumerate(texts.items()):
        (tmp_path / str(number)).write_text(text)
        assert recognise(tmp_path / str(number)) == name
    assert declared_licence(b"/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */") == (
        "GPL-2.0-only WITH Linux-syscall-note"
    )
    assert declared_licence(b"no tag") == ""


def test_real_news_pages_come_through() -> None:
    found = read(Html(paths=[str(test_data("html-extraction") / "**" / "*.html.gz")]), max_bytes=10_000_000)
    assert len(found) > 50
    assert all(c.refused is None and c.data.decode() for c in found)
