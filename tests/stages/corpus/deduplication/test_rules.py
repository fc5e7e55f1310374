"""Rules over the whole corpus: what each drops or cuts, which copy is kept, and on which texts they err."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages.artifacts.corpus import Corpus
from stages.corpus.deduplication.same_address import host_and_path
from stages.corpus.ingest import IngestCorpus
from stages.corpus.remove import RemoveDocuments
from tests.stages.corpus.examples import SAMPLE_AND_FULL, all_documents, digests, ingest, prose, source, write_lines
from tests.support import run_stage, test_data


def records(*names: str) -> list[dict[str, Any]]:
    with gzip.open(test_data(*names), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def deduplicated(folder: Path, texts: list[Any], *rules: dict[str, Any], **fields: Any) -> Corpus:
    rows = [text if isinstance(text, dict) else {"text": text} for text in texts]
    path = write_lines(folder / "in.jsonl", rows)
    values = {"min_characters": 10, "deduplicate": list(rules), "validation_fraction": 0.3, **fields}
    return ingest(folder, path, **values)[0]


def dropped(corpus: Corpus) -> dict[str, int]:
    return {reason: tally.documents for reason, tally in corpus.manifest.total.dropped.items()}


def paragraphs(number: int, words: int) -> list[str]:
    """Words of a vocabulary of 5,000, at random."""
    draw = random.Random(number)
    return [f"w{draw.randrange(5000)}" for _ in range(words)]


def editions() -> list[dict[str, Any]]:
    """Three editions of each chapter: with other punctuation and spelling, an added sentence, or replaced words."""
    rows = []
    for chapter in range(40):
        draw = random.Random(chapter)
        words = paragraphs(chapter + 100, 300)
        for edition in range(3):
            changed = [f"v{draw.randrange(5000)}" if edition and draw.random() < 0.01 * edition else w for w in words]
            place = draw.randrange(len(changed))
            changed[place:place] = paragraphs(1000 + 3 * chapter + edition, 8 * edition)
            text = (" -- " if edition == 1 else ", ").join(
                " ".join(changed[start : start + 12]) for start in range(0, len(changed), 12)
            )
            text = text.upper() if edition == 2 else text
            rows.append({"id": f"{chapter}/{edition}", "family": f"chapter {chapter}", "text": text})
    return rows


@SAMPLE_AND_FULL
def test_near_duplicates_of_real_books_are_found_family_by_family(tmp_path: Path, size: str) -> None:
    rows = editions() if size == "sample" else records("messy", "near-duplicates-war-and-peace.jsonl.gz")
    family = {row["id"]: row["family"] for row in rows}
    corpus = deduplicated(tmp_path, [{**row, "path": row["id"]} for row in rows], {"rule": "near"})
    stayed = {document.path for document in all_documents(corpus)}
    found = {row["path"]: row["family"] for row in corpus.families()}
    pairs = {(one, other) for one, other in itertools.combinations(sorted(found), 2) if found[one] == found[other]}
    gold = {(one, other) for one, other in itertools.combinations(sorted(family), 2) if family[one] == family[other]}
    assert len(pairs & gold) / len(pairs) >= 0.99
    assert len(pairs & gold) / len(gold) >= 0.95
    assert len({family[path] for path in stayed}) == len(set(family.values()))  # one of each family is still there


def unlike_pages() -> list[str]:
    """Pages of one site: the first and the last lines are the same on all, the text in between differs."""
    menu, notice = (
        "Home | About us | Contact the editors",
        "You may copy this page if you name the site that it is from.",
    )
    return [f"{menu}\n{' '.join(paragraphs(number + 5000, 60 + number % 200))}\n{notice}" for number in range(400)]


@SAMPLE_AND_FULL
def test_few_of_unlike_web_pages_are_taken_for_duplicates(tmp_path: Path, size: str) -> None:
    texts = unlike_pages() if size == "sample" else [r["text"] for r in records("messy", "ewt-web-text.jsonl.gz")]
    corpus = deduplicated(tmp_path, texts, {"rule": "near"}, {"rule": "simhash"})
    total = corpus.manifest.total
    removed = sum(count for reason, count in dropped(corpus).items() if reason.startswith("deduplicate."))
    assert removed < 0.01 * total.read.documents


@pytest.mark.parametrize("library", ["rensa", "datasketch"])
def test_what_is_alike_is_decided_by_similarity_not_by_bands(tmp_path: Path, library: str) -> None:
    words = paragraphs(1, 400)
    close = [*words[:380], *paragraphs(2, 20)]  # Jaccard 0.90
    far = [*words[:240], *paragraphs(3, 160)]  # 0.43
    texts = [" ".join(text) for text in (words, close, far)]
    rule = {"rule": "near", "bands": 50, "rows": 2, "library": library}
    for number, (asked, stay) in enumerate(((None, 2), (0.3, 1), (0.7, 2), (0.99, 3))):
        similarity = {"similarity": asked} if asked else {}
        corpus = deduplicated(tmp_path / f"{number}", [*texts, *map(prose, range(40))], {**rule, **similarity})
        kept = {document.text for document in all_documents(corpus)}
        assert len(kept & set(texts)) == stay


def test_the_copy_of_the_first_source_stays_wherever_it_was_read(tmp_path: Path) -> None:
    texts = [" ".join(paragraphs(number, 120)) for number in range(40)]
    found = {}
    for name, order in (("one", 1), ("two", -1)):
        sources = {}
        for rank, (label, ending) in enumerate((("good", "."), ("bad", " and so on"))):
            rows = [{"text": text + ending, "path": f"{label}{number}"} for number, text in enumerate(texts)]
            for number, row in enumerate(rows[::order]):
                write_lines(tmp_path / name / label / f"{number:02d}.jsonl", [row])
            sources[label] = source(tmp_path / name / label / "*.jsonl", rank=rank)
        rules = [{"rule": "exact"}, {"rule": "near"}]
        corpus, _ = ingest(tmp_path / name, sources=sources, deduplicate=rules, shard_bytes=3000)
        found[name] = {document.path for document in all_documents(corpus)}
        assert len(corpus.manifest.shards) > 4
        assert {row["similarity"] for row in corpus.families()} > {1.0}
    assert found["one"] == found["two"] == {f"good{number}" for number in range(40)}


def test_families_record_which_copy_was_kept_and_how_similar_the_others_are(tmp_path: Path) -> None:
    words = paragraphs(1, 300)
    alike = [" ".join([*words[:cut], "x", *words[cut:]]) for cut in (10, 150, 290)]
    corpus = deduplicated(tmp_path, [*alike, *map(prose, range(40))], {"rule": "near"})
    rows = list(corpus.families())
    assert [row["kept"] for row in rows] == [True, False, False]
    assert len({row["family"] for row in rows}) == 1
    assert rows[0]["id"] == rows[0]["family"] == min(row["id"] for row in rows)
    assert rows[0]["similarity"] == 1
    assert all(0.8 < row["similarity"] < 1 for row in rows[1:])
    assert dropped(corpus) == {"deduplicate.near": 2}


def test_rules_are_asked_in_turn_and_the_same_on_every_run(tmp_path: Path) -> None:
    texts = [*map(prose, range(60)), *map(prose, range(20)), *[prose(number) + " etc" for number in range(10)]]
    menu = "\nHome | About us | Contact the editors"
    texts = [text + menu for text in texts]
    rules = [{"rule": "exact"}, {"rule": "near"}, {"rule": "lines"}, {"rule": "substrings"}]
    runs = [deduplicated(tmp_path / name, texts, *rules, shard_bytes=4000) for name in ("one", "two")]
    assert digests(runs[0].path) == digests(runs[1].path)
    found = dropped(runs[0])
    assert found["deduplicate.exact"] == 20
    assert found["deduplicate.near"] == 10
    assert runs[0].manifest.total.trimmed["deduplicate.lines"] == 60 * len(menu.encode()) - 60  # its break stays
    assert not any("About us" in document.text for document in all_documents(runs[0]))


def test_roots_key_of_a_document_contains_only_letters(tmp_path: Path) -> None:
    texts = ["a list of things: one, two", "a list -- of 3 things? one; two!"]
    texts += [f"{'abcdefghij'[number // 10]}{'klmnopqrst'[number % 10]} is a line" for number in range(100)]
    for ignore, found in (("white_space", {}), ("digits_and_punctuation", {"deduplicate.exact": 1})):
        corpus = deduplicated(tmp_path / ignore, texts, {"rule": "exact", "ignore": ignore})
        assert dropped(corpus) == found


def test_one_page_under_several_addresses(tmp_path: Path) -> None:
    urls = ["https://www.example.org/a", "http://example.org:80/a/?page=2#top", "https://example.org/b", "", ""]
    rows = [{"text": prose(number), "url": url} for number, url in enumerate(urls)]
    corpus = deduplicated(tmp_path, [*rows, *map(prose, range(10, 40))], {"rule": "url"})
    assert dropped(corpus) == {"deduplicate.url": 1}
    assert [host_and_path(url) for url in ("//[", "", "example.org/x/")] == ["", "", "example.org/x"]


def test_simhash_errs_on_long_texts_and_is_kept_from_them(tmp_path: Path) -> None:
    """Two long texts differ in one passage; a fingerprint of the whole text hardly depends on it."""
    book = paragraphs(1, 20_000)
    passages = [" ".join(paragraphs(number, 100)) for number in (2, 3)]
    long = [" ".join(book) + " " + passage for passage in passages]
    short = [prose(5, 300), prose(5, 300) + " more"]
    texts = [*long, *short, *map(prose, range(40, 80))]
    unguarded = deduplicated(tmp_path / "unguarded", texts, {"rule": "simhash", "max_words": None})
    guarded = deduplicated(tmp_path / "guarded", texts, {"rule": "simhash"})
    cut = deduplicated(tmp_path / "cut", texts, {"rule": "substrings"})  # what ROOTS took for long texts
    lost = [
        sum(not any(passage[10:] in document.text for document in all_documents(corpus)) for passage in passages)
        for corpus in (unguarded, guarded, cut)
    ]
    assert lost == [1, 0, 0]
    assert dropped(guarded) == {"deduplicate.simhash": 1}  # of the short ones


def test_template_lines_are_removed_only_from_their_source(tmp_path: Path) -> None:
    menu = "Subscribe to our newsletter today"
    news = [f"{prose(number)}\n  {menu}\nshort\n{prose(number + 500)}" for number in range(12)]
    books = [f"{menu}\n{prose(number)}" for number in range(100, 105)]
    sources = {
        name: source(write_lines(tmp_path / f"{name}.jsonl", [{"text": text} for text in texts]))
        for name, texts in (("news", news), ("books", books))
    }
    corpus, _ = ingest(tmp_path, sources=sources, deduplicate=[{"rule": "lines"}], validation_fraction=0.4)
    by_source = {name: flow.trimmed for name, flow in corpus.manifest.by("source").items()}
    assert by_source == {"news": {"deduplicate.lines": 12 * len(f"  {menu}\n")}, "books": {}}
    texts = {document.text for document in all_documents(corpus)}
    assert texts == {text.replace(f"  {menu}\n", "") for text in news} | set(books)


def test_a_document_of_only_template_lines_is_too_short_afterwards(tmp_path: Path) -> None:
    menu = "One of the lines that are everywhere\nAnd another one that is everywhere\n"
    texts = [menu + prose(number) for number in range(12)] + [menu + "rest"]
    corpus = deduplicated(tmp_path, texts, {"rule": "lines"}, min_characters=20)
    assert dropped(corpus) == {"text.too_short": 1}
    assert corpus.manifest.total.dropped["text.too_short"].bytes == len("rest")
    assert corpus.manifest.total.trimmed == {"deduplicate.lines": 13 * len(menu)}


def test_a_repeated_passage_stays_where_it_has_the_first_claim(tmp_path: Path) -> None:
    passage = "«Ça va» — " + " ".join(paragraphs(9, 30))
    texts = [f"{prose(number)} {passage} {prose(number + 50)}" for number in range(6)]
    corpus = deduplicated(tmp_path, texts, {"rule": "substrings"}, validation_fraction=0.5)
    documents = sorted(all_documents(corpus), key=lambda document: document.id)
    assert [passage in document.text for document in documents] == [True] + [False] * 5
    assert all(f"end {number}" in "".join(document.text for document in documents) for number in range(6))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"rule": "nearly"}, "expected the name of a deduplication rule"),
        ({"rule": "simhash", "max_distance": 6}, "blocks"),
        ({"rule": "near", "similarity": 0}, "similarity"),
        ({"rule": "substrings", "min_bytes": 2}, "min_bytes"),
    ],
)
def test_a_rule_that_can_not_be_is_refused_at_once(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IngestCorpus(sources={"files": source("*.txt")}, deduplicate=[rule])


def test_a_removed_document_takes_its_family_along(tmp_path: Path) -> None:
    words = [paragraphs(number, 200) for number in (1, 2)]
    alike = [" ".join([*text, "end", str(copy)]) for text in words for copy in range(2)]
    corpus = deduplicated(tmp_path, [*alike, *map(prose, range(40))], {"rule": "near"})
    rows = list(corpus.families())
    gone = next(row["id"] for row in rows if row["kept"])
    listed = tmp_path / "removals.txt"
    listed.write_text(gone)
    stage = RemoveDocuments(corpus="corpus", listed={"path": listed}, workers=1)
    after, _ = run_stage(stage, {"corpus": corpus}, tmp_path / "removed")
    left = list(after.families())
    assert left == [row for row in rows if row["family"] != gone]
    assert len(left) == 2
    assert gone not in (after.path / "pages" / "card.html").read_text()
