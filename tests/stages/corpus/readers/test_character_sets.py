"""Encodings as browsers read them: of pages, and of files whose encoding is declared."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.corpus.readers.character_sets import encoding_of, utf8_bytes
from stages.corpus.readers.csv_files import Csv
from stages.corpus.readers.files import Files
from stages.corpus.readers.html_files import Html
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.source_code import Code
from stages.corpus.readers.text_files import Text
from stages.corpus.readers.web_pages import utf8_page
from tests.stages.corpus.examples import all_documents, ingest, prose
from tests.stages.corpus.readers.support import read

RUSSIAN = "Утренний паром уходит от северного причала и возвращается чуть позже полудня. "
FRENCH = "Le bac du matin quitte la jetée nord à sept heures et revient peu après midi. "
MARKED = ("utf-8", "utf-16", "utf-32")
LABELS = ("", "euc-jp", "iso-2022-jp", "gb18030", "big5", "shift_jis", "utf-16")
JAPANESE = "春の港に朝の船が着くと、市場の人々は魚の箱を並べ、値段を書いた札を立てる。"


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("gb2312", "镕喆".encode("gb18030") + b"\x80", "镕喆€"),
        ("GBK", "㐀".encode("gb18030"), "㐀"),
        ("shift_jis", "①髙㈱".encode("cp932"), "①髙㈱"),
        ("x-sjis", "～".encode("cp932"), "～"),
        ("euc-jp", b"\xad\xa1\xa1\xc1\x8e\xb1\x8f\xb0\xa1", "①～ｱ丂"),
        ("iso-2022-jp", b"\x1b$B-!!A\x1b(B end", "①～ end"),
        ("euc-kr", "똠방각하".encode("cp949"), "똠방각하"),
        ("ks_c_5601-1987", "뷁".encode("cp949"), "뷁"),
        ("big5", "嘅啲".encode("big5hkscs") + b"\xa1\xe3\xa3\xe1", "嘅啲～€"),
        ("iso-8859-1", b"\x93quoted\x94 \x80 \x81", "“quoted” € \x81"),
        ("us-ascii", b"\x85", "…"),
        ("iso-8859-9", b"\x93\xfd\xfe\x94", "“ış”"),
        ("iso-8859-11", b"\x85\xe0", "…เ"),
        ("tis-620", b"\x91\xa1\x92", "‘ก’"),
        ("iso-8859-8-i", "שלום".encode("iso8859-8"), "שלום"),
        ("koi8-ru", b"\xae", "ў"),
        ("cskoi8r", "да".encode("koi8-r"), "да"),
        ("macintosh", b"\x8e", "é"),
        ("x-user-defined", b"a\x80\xff", "a\uf780\uf7ff"),
        ("hz-gb-2312", b"~{VPND~}", "\ufffd"),  # the standard does not decode it
        ("iso-2022-kr", b"text", "\ufffd"),
        (" UTF-8\n", b"a\xffb", "a\ufffdb"),
        ("utf-16", "é".encode("utf-16-le"), "é"),
        ("windows-1253", b"\xaa\xe1", "\ufffdα"),  # not defined
    ],
)
def test_labels_mean_what_they_mean_to_browsers(label: str, data: bytes, text: str) -> None:
    encoding = encoding_of(label)
    assert encoding is not None
    assert encoding.decode(data) == text


@pytest.mark.parametrize("label", ["", "utf-7", "hex", "idna", "utf-32", "no-such-encoding"])
def test_other_labels_are_unknown_to_pages(label: str) -> None:
    assert encoding_of(label) is None
    assert utf8_page("é".encode(), f"text/html; charset={label}") == "é".encode()


def page(head: str, body: str = RUSSIAN, encoding: str = "windows-1251") -> bytes:
    return f"{head}<p>{body}".encode(encoding)


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (page("<meta charset=windows-1251>"), ""),
        (page("<META HTTP-EQUIV='Content-Type' CONTENT='text/html; charset=windows-1251'>"), ""),
        (page("<meta content='text/html;charset = \"windows-1251\"' http-equiv=content-type>"), ""),
        (page("<!-- <meta charset=koi8-r> --><meta charset=windows-1251>"), ""),
        (page("<title a=\"<meta charset='koi8-r'>\"></title><meta charset=windows-1251>"), ""),
        (page("<p title=it's><meta charset=windows-1251>"), ""),
        (page("<meta name=description content='charset=koi8-r'><meta charset=windows-1251>"), ""),
        (page("<meta charset=no-such><meta charset=windows-1251>"), ""),
        (page("<meta charset=windows-1251><meta charset=koi8-r>"), ""),
        (page("<style>" + "x" * 5000 + "</style><meta charset=windows-1251>"), ""),
        (page('<?xml version="1.0" encoding="windows-1251"?><html>'), ""),
        (page("<?xml version='1.0' encoding='koi8-r'?><meta charset=windows-1251>"), ""),
        (page("<meta charset=koi8-r>"), "text/html; charset=windows-1251"),
        (page("<meta charset=windows-1251>"), "text/html; charset=no-such"),
        (page("<meta charset=koi8-r>"), 'text/html;CHARSET="windows-1251"; x=y'),
        (page("<meta charset=utf-16>", encoding="utf-8"), ""),
        (page('<?xml version="1.0" encoding="utf-16"?>', encoding="utf-8"), ""),
        (page("<meta charset=koi8-r>", encoding="utf-8-sig"), "text/html; charset=koi8-r"),
        (codecs.BOM_UTF16_BE + page("<meta charset=koi8-r>", encoding="utf-16-be"), "text/html; charset=koi8-r"),
        (codecs.BOM_UTF32_LE + page("", encoding="utf-32-le"), ""),
        (page("<p>", encoding="utf-16-be"), "text/html; charset=utf-16be"),
        (page('<?xml version="1.0"?>', encoding="utf-16-le"), ""),
        (page("", RUSSIAN * 3), ""),  # nothing is declared
        (page("", RUSSIAN * 3, "koi8-r"), ""),
        (page("<meta charset=no-such>", encoding="utf-8"), ""),
    ],
)
def test_a_page_is_read_in_the_encoding_that_a_browser_would_choose(data: bytes, header: str) -> None:
    text = utf8_page(data, header).decode()
    assert RUSSIAN in text
    assert "\ufeff" not in text
    assert "<?xml" not in text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH * 3, "cp1252"),
        (JAPANESE * 3, "cp932"),
        (JAPANESE * 3, "euc_jp"),
        ("清晨的渡船离开北面的码头。" * 4, "gb18030"),
    ],
)
def test_what_is_not_declared_is_detected(text: str, encoding: str) -> None:
    assert utf8_page(f"<p>{text}".encode(encoding)).decode() == f"<p>{text}"


def test_a_bad_byte_is_replaced_and_the_ratio_decides(tmp_path: Path) -> None:
    text = FRENCH * 40
    (tmp_path / "few.html").write_bytes(text.encode()[:1000] + b"\xff" + text.encode()[1000:])
    (tmp_path / "many.html").write_bytes(b"<meta charset=utf-8>" + text.encode("latin-1"))
    (tmp_path / "unreadable.html").write_bytes(b"<meta charset=iso-2022-kr>" + b"text " * 100)
    few, many, unreadable = (candidate.data.decode() for candidate in read(Html(paths=[str(tmp_path / "*")]), 10**6))
    assert few.count("\ufffd") == 1
    assert few.replace("\ufffd", "") == text
    assert many.count("\ufffd") > 40
    assert unreadable == "\ufffd"
    corpus, _ = ingest(
        tmp_path / "run", sources={"s": {"reader": {"kind": "html", "paths": [str(tmp_path / "*.html")]}}},
        validation_fraction=0,
    )  # fmt: skip
    assert [document.path for document in all_documents(corpus)] == ["few.html"]
    assert corpus.manifest.total.dropped["text.replacement_characters"].documents == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
@pytest.mark.parametrize("pack", [False, True])
def test_a_byte_order_mark_names_the_encoding_and_is_left_out_of_the_text(
    tmp_path: Path, encoding: str, pack: bool
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    texts = {name: f"{prose(number)} é" for number, name in enumerate(("txt", "jsonl", "csv", "record"))}
    files = {
        "a.txt": texts["txt"],
        "a.jsonl": json.dumps({"text": texts["jsonl"]}, ensure_ascii=False) + "\n",
        "a.csv": f"n,text\n1,{texts['csv']}\n",
        "b.jsonl": json.dumps({"text": "\ufeff" + texts["record"]}, ensure_ascii=False),
    }
    for name, content in files.items():
        data = content.encode(encoding)
        (folder / (name + ".gz" * pack)).write_bytes(gzip.compress(data) if pack else data)
    corpus, _ = ingest(tmp_path, folder / "*", validation_fraction=0)
    assert {document.text for document in all_documents(corpus)} == set(texts.values())


def test_the_encoding_of_files_may_be_declared(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(RUSSIAN.encode("cp1251"))
    (tmp_path / "a.jsonl").write_bytes(json.dumps({"text": RUSSIAN}, ensure_ascii=False).encode("cp1251"))
    (tmp_path / "a.csv").write_bytes(f"text\n{RUSSIAN}\n".encode("cp1251"))
    (tmp_path / "marked.txt").write_bytes(RUSSIAN.encode("utf-8-sig"))
    for reader in (Text, JsonLines, Csv):
        (found,) = read(reader(paths=_paths(tmp_path, reader), encoding="cp1251"))
        assert found.data.decode() == RUSSIAN
    files = Files(paths=[str(tmp_path / "*")], encoding="windows-1251")
    assert [candidate.data.decode().lstrip("\ufeff") for candidate in read(files)] == [RUSSIAN] * 4
    with pytest.raises(ValidationError, match="expected an encoding"):
        Text(paths=["a.txt"], encoding="no-such")
    with pytest.raises(ValidationError, match="expected an encoding"):
        JsonLines(paths=["a.jsonl"], encoding="base64")


def _paths(folder: Path, reader: type[Text | JsonLines | Csv]) -> list[str]:
    return [str(folder / {Text: "a.txt", JsonLines: "a.jsonl", Csv: "a.csv"}[reader])]


def test_lines_in_utf16_are_read_whole_whatever_the_ranges(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"text": f"{RUSSIAN}{number}"}, ensure_ascii=False) for number in range(200))
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-16")
    reader = JsonLines(paths=[str(tmp_path / "a.jsonl")])
    texts = [candidate.data.decode() for candidate in read(reader, range_bytes=1000)]
    assert texts == [f"{RUSSIAN}{number}" for number in range(200)]


def test_source_code_in_utf16_is_read(tmp_path: Path) -> None:
    code = "// café\nclass A {}\n"
    (tmp_path / "a.cs").write_text(code, encoding="utf-16")
    assert [candidate.data.decode() for candidate in read(Code(paths=[str(tmp_path)]))] == [code]


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff")), st.sampled_from(["utf-8", "utf-16", "utf-32"])
)
def test_marks_and_utf8_give_the_text_back(text: str, encoding: str) -> None:
    assert utf8_bytes(text.encode(encoding)).decode() == text


@given(
    st.binary(max_size=300), st.sampled_from(["", "euc-jp", "iso-2022-jp", "gb18030", "big5", "shift_jis", "utf-16"])
)
def test_any_bytes_become_utf8(data: bytes, label: str) -> None:
    utf8_page(data, f"text/html; charset={label}").decode()
    if label:
        utf8_bytes(data, label).decode()
