"""Passages of real evaluation sets, planted in documents: all are found, each with its task, and nothing else is."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.artifacts.corpus import Corpus
from stages.base import StageError
from stages.corpus.statistics.shingles import shingles
from tests.stages.corpus.examples import SAMPLE_AND_FULL, all_documents, ingest, prose, write_lines
from tests.support import test_data


def own_sets(folder: Path) -> dict[str, dict[str, Any]]:
    """Thirty tasks of questions and answers, as JSON and as JSON Lines."""
    sets = {}
    for number in range(30):
        draw = random.Random(number)
        names = draw.sample(("Ama", "Ben", "Chidi", "Dana", "Elif", "Farid", "Grete", "Hugo", "Inés", "Jun"), 4)
        rows = [
            {
                "question": f"{name} has {draw.randrange(2, 90)} boxes with {draw.randrange(2, 90)} pens and gives "
                f"{draw.randrange(2, 90)} pens to {other}; how many pens does {name} have left after {number} days?",
                "answer": f"{draw.randrange(1000)}",
            }
            for name, other in itertools.permutations(names, 2)
        ]
        path = folder / (f"task{number}.jsonl" if number % 2 else f"task{number}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)) if number % 2 else json.dumps({"examples": rows}))
        sets[f"own/task{number}"] = {"paths": [str(path)], "fields": ["question", "answer"]}
    return sets


def evaluation_sets() -> dict[str, dict[str, Any]]:
    tasks = test_data("natural-instructions", "tasks")
    held_out = test_data("natural-instructions", "splits", "test_tasks.txt").read_text().split()
    held_out = [task for task in held_out if (tasks / f"{task}.json").exists()]
    sets = {f"bbh/{file.stem}": [str(file)] for file in sorted(test_data("big-bench-hard", "bbh").glob("*.json"))}
    sets |= {f"ni/{task}": [str(tasks / f"{task}.json")] for task in held_out}
    sets["gsm8k"] = [str(test_data("gsm8k", "test.jsonl"))]
    instances = {"fields": ["Instances", "Definition", "examples", "question", "answer"]}
    return {name: {"paths": paths, **instances} for name, paths in sets.items()}


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for member in members for text in strings(member)]


def passages(paths: list[str], draw: random.Random) -> list[str]:
    """Runs of 13 words of a set, with different case and punctuation."""
    data = Path(paths[0]).read_text()
    records = [json.loads(line) for line in data.splitlines()] if paths[0].endswith("l") else json.loads(data)
    chosen = records if isinstance(records, list) else records.get("examples") or records["Instances"]
    texts = [text for text in strings(chosen) if len(shingles([text], 1).hashes) >= 13]
    found = []
    for text in draw.sample(texts, min(4, len(texts))):
        found_runs = shingles([text], 13)
        runs = found_runs.characters(np.arange(len(found_runs.hashes))).tolist()
        start, stop = runs[draw.randrange(len(runs))]
        found.append(text[start:stop].upper() if text.isascii() else text[start:stop])
    return found


@SAMPLE_AND_FULL
def test_every_planted_passage_is_found_and_reported_with_its_task(tmp_path: Path, size: str) -> None:
    tasks, draw = own_sets(tmp_path / "sets") if size == "sample" else evaluation_sets(), random.Random(0)
    planted = [(task, passage) for task, values in tasks.items() for passage in passages(values["paths"], draw)]
    assert len({task for task, _ in planted}) >= 25
    rows = [
        {"text": f"{prose(number)}\n{passage.replace(' ', '  ')}; {prose(number + 1000)}", "path": task}
        for number, (task, passage) in enumerate(planted)
    ]
    clean = [{"text": prose(number), "path": "clean"} for number in range(5000, 5060)]
    path = write_lines(tmp_path / "in.jsonl", [*rows, *clean])
    corpus, _ = ingest(tmp_path, path, decontaminate={"tasks": tasks})
    ledger = [row for shard in range(len(corpus.manifest.shards)) for row in corpus.dropped(shard).to_pylist()]
    assert sorted(row["path"] for row in ledger) == sorted(task for task, _ in planted)
    assert all(row["path"] in row["value"].split(", ") for row in ledger)
    for task, found in corpus.manifest.contamination.items():
        held = sum(task in row["value"].split(", ") for row in ledger)
        assert found.documents == held >= (task in {t for t, _ in planted})
        assert found.too_short < found.texts or task not in {t for t, _ in planted}
    assert {row["rule"] for row in ledger} == {"evaluation_set"}
    assert {document.path for document in all_documents(corpus)} == {"clean"}


def small(tmp_path: Path, texts: list[str], **fields: Any) -> Corpus:
    path = write_lines(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    return ingest(tmp_path, path, decontaminate={"tasks": {"quiz": {"paths": [str(tmp_path / "quiz.txt")]}}, **fields})[
        0
    ]


QUESTION = "how many of the seven «bridges» of Königsberg can be crossed in one walk without coming back"


def test_what_is_shared_can_be_cut_out_instead(tmp_path: Path) -> None:
    (tmp_path / "quiz.txt").write_text(QUESTION)
    texts = [f"{prose(1)} {QUESTION.upper()}? {prose(2)}", *map(prose, range(3, 40))]
    corpus = small(tmp_path, texts, action="cut")
    assert {document.text for document in all_documents(corpus)} == {f"{prose(1)} ? {prose(2)}", *texts[1:]}
    assert corpus.manifest.total.trimmed == {"decontaminate.evaluation_set": len(QUESTION.upper().encode())}


def test_fewer_words_than_required_are_not_a_hit(tmp_path: Path) -> None:
    (tmp_path / "quiz.txt").write_text(QUESTION)
    words = QUESTION.split()
    texts = [f"{prose(1)} {' '.join(words[:12])} {prose(2)}", *map(prose, range(3, 40))]
    assert not small(
        tmp_path / "few", texts, tasks={"quiz": {"paths": [str(tmp_path / "quiz.txt")]}}
    ).manifest.total.dropped
    assert small(tmp_path, texts, words=12).manifest.total.dropped["decontaminate.evaluation_set"].documents == 1


def test_samples_too_short_to_search_for_are_counted_and_reported(tmp_path: Path) -> None:
    rows = [{"question": QUESTION, "answer": "yes"}, {"question": "why?", "answer": ""}, {"question": prose(7)}]
    write_lines(tmp_path / "quiz.jsonl", rows)
    (tmp_path / "names.txt").write_text("Königsberg, Kneiphof")
    tasks = {name: {"paths": [str(tmp_path / name)]} for name in ("quiz.jsonl", "names.txt")}
    path = write_lines(tmp_path / "in.jsonl", [{"text": prose(number)} for number in range(40)])
    corpus, context = ingest(tmp_path, path, decontaminate={"tasks": tasks})
    assert {
        task: (found.documents, found.texts, found.too_short) for task, found in corpus.manifest.contamination.items()
    } == {
        "quiz.jsonl": (1, 4, 2),
        "names.txt": (0, 1, 1),
    }
    warning = "evaluation set names.txt was not searched for: all of its 1 texts are too short"
    assert [note for note in context.notes if note.startswith("warning")] == [f"warning: {warning}"]
    assert "| quiz.jsonl | 1 | 4 | 2 |" in (corpus.path / "pages" / "card.md").read_text()


def test_lines_of_a_set_end_only_at_newlines(tmp_path: Path) -> None:
    """Texts may contain other line separators; a byte order mark is not one."""
    rows = [{"q": f"{prose(101, 8)}\u2028{prose(102, 8)}\x85"}, {"q": prose(100, 20)}]
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "quiz.jsonl").write_bytes(b"\xef\xbb\xbf" + data.encode())
    texts = [prose(number) for number in range(20)] + [row["q"] for row in rows]
    path = write_lines(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    tasks = {"quiz": {"paths": [str(tmp_path / "quiz.jsonl")]}}
    corpus, _ = ingest(tmp_path, path, decontaminate={"tasks": tasks})
    found = corpus.manifest.contamination["quiz"]
    assert (found.documents, found.texts, found.too_short) == (2, 2, 0)


@pytest.mark.parametrize(("name", "data"), [("quiz.json", b"{"), ("quiz.txt", b"\xff"), ("quiz.jsonl.gz", b"no gzip")])
def test_a_set_that_can_not_be_read_is_one_clear_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    tasks = {"quiz": {"paths": [str(tmp_path / name)]}}
    with pytest.raises(StageError, match="not a readable evaluation set"):
        small(tmp_path / "in", list(map(prose, range(20))), tasks=tasks)
    with pytest.raises(StageError, match="matches no file"):
        small(tmp_path / "in", list(map(prose, range(20))), tasks={"quiz": {"paths": [str(tmp_path / "absent.*")]}})
