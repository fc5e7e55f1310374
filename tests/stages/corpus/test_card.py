"""The data card: its numbers are those of a recount, and nothing in a corpus can break out of its page."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from stages.artifacts.corpus import KEPT, Corpus
from stages.base import PAGE_POLICY
from stages.corpus.card.formatting import size
from stages.corpus.card.tree_map import squarified
from tests.stages.corpus.examples import all_documents, ingest, prose, source, write_lines

EVIL = "<script>alert(1)</script>|`x`"


class Page(HTMLParser):
    """Tags, and the cells of all tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.rows: list[list[str]] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        assert not any(name.startswith("on") or (value or "").startswith("http") for name, value in attrs)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        self._cell = tag == "td"

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._cell = False


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("card")
    words = [prose(number, 120) for number in range(40)]
    rows = [{"text": text, "language": "fr", "license": EVIL, "path": EVIL} for text in words]
    rows += [{"text": text + " and so on", "language": "en", "license": "CC0-1.0"} for text in words[:10]]
    rows += [{"text": EVIL, "language": "en"}]
    sources = {
        "news": source(write_lines(folder / "news.jsonl", rows)),
        "lost": source(write_lines(folder / "lost.jsonl", [{"text": "short"}] * 5)),
    }
    rules = [{"rule": "exact"}, {"rule": "near"}]
    return ingest(folder, sources=sources, deduplicate=rules)[0]


def test_its_numbers_are_those_of_a_recount(corpus: Corpus) -> None:
    documents: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for document in all_documents(corpus):
        for name in (document.source, document.license, document.language):
            documents[name] += 1
            sizes[name] += len(document.text.encode())
    page = Page((corpus.path / "pages" / "card.html").read_text())
    found = {row[0]: row[1:] for row in page.rows if len(row) == 6}
    for shown, name in (("news", "news"), ("French (fr)", "fr"), (EVIL, EVIL)):
        assert found[shown][1] == f"{documents[name]:,}"
        assert found[shown][3] == f"{sizes[name]:,}"
    dropped = Counter(
        f"{row['operation']}.{row['rule']}"
        for shard in range(len(corpus.manifest.shards))
        for row in corpus.dropped(shard).to_pylist()
    )
    reported = {row[0]: int(row[1].replace(",", "")) for row in page.rows if row and row[0] in dropped}
    assert reported == dropped
    markdown = (corpus.path / "pages" / "card.md").read_text()
    for name, count in dropped.items():
        assert re.search(rf"^\| {re.escape(name)} \| {count:,} \|", markdown, re.MULTILINE)


def test_what_a_corpus_says_is_only_text(corpus: Corpus) -> None:
    page = Page((corpus.path / "pages" / "card.html").read_text())
    assert not page.tags["script"]
    assert not page.tags["link"] + page.tags["img"]  # self-contained
    markdown = (corpus.path / "pages" / "card.md").read_text()
    assert "<script" not in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.splitlines() if "alert" in line}) == 1


def test_every_source_has_its_bar_and_every_rule_its_samples_under_it(corpus: Corpus) -> None:
    text = (corpus.path / "pages" / "card.html").read_text()
    flows = corpus.manifest.by("source")
    assert flows.keys() == {"news", "lost"}
    for name, flow in flows.items():
        kept, read = flow.kept.bytes, flow.read.bytes
        assert f"<title>{name}: {size(kept)} kept, {kept / read:.1%} of the text read</title>" in text
        dropped = sum(tally.bytes for tally in flow.dropped.values())
        assert f"<title>{name}: {size(dropped)} dropped, {dropped / read:.1%} of the text read</title>" in text
    dropped_rows = [row for row in corpus.samples().to_pylist() if row["operation"]]
    samples = [(f"{row['operation']}.{row['rule']}", row["text"]) for row in dropped_rows]
    assert len({reason for reason, _ in samples}) >= 2
    for reason, sample in samples:
        (folded,) = re.findall(rf'<details><summary><svg role=img aria-label="{reason}: .*?</details>', text, re.DOTALL)
        assert str(escape(sample[:100])) in folded


def test_the_page_may_run_no_script_and_send_no_request(corpus: Corpus) -> None:
    text = (corpus.path / "pages" / "card.html").read_text()
    assert f'<meta http-equiv=Content-Security-Policy content="{PAGE_POLICY}">' in text.partition("<title>")[0]


def test_lengths_are_a_column_each(corpus: Corpus) -> None:
    text = (corpus.path / "pages" / "card.html").read_text()
    lengths = [len(document.text.encode()).bit_length() for document in all_documents(corpus)]
    for bits, count in Counter(lengths).items():
        begins = {10: "512 B", 11: "1 KiB"}[bits]
        assert f"<title>{count:,} documents of {begins} or more</title>" in text
    assert text.count(" or more</title>") == max(lengths) - min(lengths) + 1


def test_languages_of_roots_are_listed_by_family(corpus: Corpus) -> None:
    page = Page((corpus.path / "pages" / "card.html").read_text())
    held = sorted({document.language for document in all_documents(corpus)})
    assert "fr" in held
    (european,) = (row for row in page.rows if row and row[0] == f"Indo-European: {len(held)} of 14")
    assert all((f"({code})" in european[1]) == (code in held) for code in ("en", "fr", "hi"))
    assert all((f"({code})" in european[2]) != (code in held) for code in ("en", "fr", "hi"))
    markdown = (corpus.path / "pages" / "card.md").read_text()
    assert f"## Languages of ROOTS: {len(held)} of 59" in markdown
    assert "| Programming languages: 0 of 13 | (none) | C (c), C++ (c++)," in markdown


def test_samples_families_and_warnings_are_there(corpus: Corpus) -> None:
    text = (corpus.path / "pages" / "card.html").read_text()
    assert "source lost lost 100%" in text
    assert re.search(r'aria-label="text\.too_short: \d+ B in 6 documents"', text)
    assert "<p>10 families.</p>" in text
    assert text.count(" and 1 more</summary>") == 10
    assert "%, kept)" in text
    assert "%, dropped)" in text


def test_what_was_kept_is_shown_by_source(corpus: Corpus) -> None:
    kept = {document.id: document for document in all_documents(corpus)}
    rows = [row for row in corpus.samples().to_pylist() if row["rule"] == KEPT and not row["operation"]]
    assert len(rows) == 5  # samples_per_rule
    text = (corpus.path / "pages" / "card.html").read_text()
    shown = text.partition("<h2>Samples of what was kept</h2>")[2]
    for row in rows:
        assert kept[row["id"]].text.startswith(row["text"][:600])
        assert str(escape(row["text"][:600])) in shown


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=40))
def test_a_tree_map_fills_its_space_in_proportion(sizes: list[float]) -> None:
    ordered = sorted(sizes, reverse=True)
    found = squarified(ordered, 0, 0, 900, 300)
    for each, (x, y, width, height) in zip(ordered, found, strict=True):
        assert width * height == pytest.approx(each / sum(sizes) * 270_000, rel=1e-6)
        assert -1e-3 <= x <= x + width <= 900.001
        assert -1e-3 <= y <= y + height <= 300.001


def test_files_that_could_not_be_read_are_no_documents(tmp_path: Path) -> None:
    write_lines(tmp_path / "good.jsonl", [{"text": prose(number)} for number in range(9)])
    (tmp_path / "bad.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "worse.jsonl.gz").write_bytes(b"")
    given = source(tmp_path / "*.jsonl", tmp_path / "*.gz", reader={"bad_files": "drop"})
    corpus, context = ingest(tmp_path, sources={"files": given}, validation_fraction=0)
    assert corpus.manifest.total.read.documents == 11
    said = context.highlights["data card"]
    assert said.startswith("9 documents with ")
    assert said.endswith(" 2 files could not be read: the ledger names them.")


def test_markup_is_not_counted_as_text_that_was_lost(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in range(6):
        text = "".join(f"<p>{prose(6 * number + part, 30)}</p>" for part in range(3))
        head = f"<html><head><style>{'.a{color:red} ' * 400}</style></head>"
        (folder / f"{number}.html").write_text(f"{head}<body><article>{text}</article></body></html>")
    (folder / "empty.html").write_text("<html><script>" + "x=1;" * 2000 + "</script></html>")
    pages = {"kind": "html", "paths": [str(folder / "*.html")]}
    rows = [{"text": prose(number), "language": "python"} for number in range(100, 110)]
    sources = {
        "pages": {"reader": pages, "operations": [{"operation": "extract_html"}, {"operation": "words", "minimum": 5}]},
        "code": source(write_lines(tmp_path / "code.jsonl", rows)),
    }
    corpus, _ = ingest(tmp_path, sources=sources, validation_fraction=0, draw=True)
    manifest = corpus.manifest
    flow = manifest.by("source")["pages"]
    assert flow.kept.documents == 6
    assert flow.read.bytes - manifest.markup_bytes("pages") == flow.kept.bytes
    assert manifest.markup_bytes() == manifest.markup_bytes("pages") > 6 * 5000
    card = (corpus.path / "pages" / "card.html").read_text()
    assert f"of which {size(manifest.markup_bytes())} are markup" in card
    assert "(100.0% of the text)" in card
    assert f"pages: {size(flow.kept.bytes)} kept, 100.0% of the text read" in card
    assert "extract_html (markup)" in card
    assert "Languages of ROOTS" not in card  # in a corpus of code


def test_values_are_shown_with_their_thresholds(tmp_path: Path) -> None:
    rows = [{"text": " ".join(["word"] * number), "path": str(number)} for number in range(1, 101)]
    operations = [{"operation": "words", "minimum": 11}, {"operation": "characters", "maximum": 400}]
    corpus, _ = ingest(
        tmp_path, write_lines(tmp_path / "in.jsonl", rows), validation_fraction=0, min_characters=0,
        source={"operations": operations}, draw=True, shard_bytes=4000,
    )  # fmt: skip
    assert len(corpus.manifest.shards) > 2
    page = Page((corpus.path / "pages" / "card.html").read_text())
    found = {row[0]: row[1:] for row in page.rows if row and row[0].startswith("files: ")}
    assert found["files: words.too_few"] == ["100", "1", "10", "50", "90", "99", "11", "10"]
    assert found["files: characters.too_many"][0] == "90"  # those that `words` kept
    assert found["files: characters.too_many"][-2:] == ["400", "20"]
    dropped = corpus.manifest.total.dropped
    for row in corpus.values().to_pylist():
        assert row["fails"] == (row["value"] < 11 if row["operation"] == "words" else row["fails"])
    failing = Counter[str]()
    for row in corpus.values().to_pylist():
        failing[f"{row['operation']}.{row['rule']}"] += row["documents"] * row["fails"]
    assert {name: count for name, count in failing.items() if count} == {
        name: tally.documents for name, tally in dropped.items() if not name.startswith("deduplicate")
    }
