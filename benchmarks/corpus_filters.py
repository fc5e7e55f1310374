"""The filters in benchmarks/corpus.py: speed, memory and decisions of the same rules on the same documents.

Both tools read JSON Lines, apply the repetition and quality rules of Gopher and the rules of FineWeb and C4, and write
the documents that they keep. They run alternately in separate processes. Seconds are processor time, that is, of one
core. As a command, this module runs bloomline: `python -m benchmarks.corpus_filters DOCUMENTS.jsonl OUT`.
"""

from __future__ import annotations

import gzip
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHAIN = ("gopher_repetition", "gopher_quality", "fineweb_quality", "c4_quality")
# Operations that are timed alone, with their parameters.
ALONE: dict[str, dict[str, Any]] = {
    "repair_unicode": {},
    "white_space": {},
    "language": {"minimum": 0},
    "roots_modifiers": {"language": "en"},
    "roots_quality": {"language": "en", "language_score": "off"},
    "gopher_repetition": {},
    "gopher_quality": {},
    "fineweb_quality": {},
    "c4_quality": {},
    "redact_pii": {},
}
QUICK_BYTES = 1_000_000
SHOWN = 12  # documents with different decisions


def measure(data: Path, folder: Path, peer_python: str, *, quick: bool) -> dict[str, Any]:
    documents = folder / "documents.jsonl"
    size = _write(documents, data, QUICK_BYTES if quick else None)
    ours, theirs = [], []
    for turn in range(1 if quick else 3):
        ours.append(_run([sys.executable, "-m", "benchmarks.corpus_filters"], documents, folder / f"ours-{turn}"))
        script = str(ROOT / "benchmarks" / "corpus_datatrove.py")
        theirs.append(_run([peer_python, script], documents, folder / f"theirs-{turn}"))
    return {
        "documents": sum(1 for _ in documents.open(encoding="utf-8")),
        "megabytes": size / 1e6,
        "bloomline": _summary(ours, size),
        "datatrove": _summary(theirs, size),
        "differences": _differences(documents, folder / "ours-0", folder / "theirs-0"),
        "alone_megabytes_per_s": _alone(documents),
        "extraction": _extraction(data, 20 if quick else None),
    }


def _write(path: Path, data: Path, limit: int | None) -> int:
    """Write documents of several kinds alternately, so that every part of the file is mixed. Returns their bytes."""
    sources = [_jsonl(data / "messy" / "ewt-web-text.jsonl.gz", "text")]
    sources.append(_jsonl(data / "messy" / "spamassassin-raw.jsonl.gz", "raw"))
    sources.append(_jsonl(data / "messy" / "near-duplicates-war-and-peace.jsonl.gz", "text"))
    sources.append(_jsonl(data / "multilingual" / "gnome-user-docs" / "en.jsonl.gz", "text"))
    size = 0
    with path.open("w", encoding="utf-8") as lines:
        while sources and (limit is None or size < limit):
            source = sources.pop(0)
            row = next(source, None)
            if row is not None:
                lines.write(json.dumps(row) + "\n")
                size += len(row["text"].encode())
                sources.append(source)
    return size


def _jsonl(path: Path, field: str) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield {"id": row["id"], "text": row[field].encode("utf-8", "replace").decode()}


def _run(command: list[str], documents: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    try:
        done = subprocess.run(
            [*command, str(documents), str(out)], capture_output=True, text=True, cwd=ROOT, timeout=1800
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"reason": str(error)}
    if done.returncode:
        return {"reason": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _summary(rounds: list[dict[str, Any]], size: int) -> dict[str, Any]:
    if "reason" in rounds[0]:
        return {"not_measured": rounds[0]["reason"]}
    seconds = statistics.median(one["seconds"] for one in rounds)
    return {
        "megabytes_per_s": size / 1e6 / seconds,
        "seconds": [one["seconds"] for one in rounds],
        "kept": rounds[0]["kept"],
        "peak_megabytes": max(one["peak_bytes"] for one in rounds) / 1e6,
    }


def _differences(documents: Path, ours: Path, theirs: Path) -> dict[str, Any] | None:
    """For each filter: the documents that one tool keeps and the other drops."""
    if not (theirs / "decisions.json").exists():
        return None
    one, other = (json.loads((folder / "decisions.json").read_text()) for folder in (ours, theirs))
    number = sum(1 for _ in documents.open(encoding="utf-8"))
    return {
        name: {
            "same": number - len(one[name].keys() ^ other[name].keys()),
            "of": number,
            "dropped by bloomline": len(one[name]),
            "dropped by datatrove": len(other[name]),
            "different": {
                identity: [one[name].get(identity, "kept"), other[name].get(identity, "kept")]
                for identity in sorted(one[name].keys() ^ other[name].keys())
            },
        }
        for name in CHAIN
    }


def _alone(documents: Path) -> dict[str, float]:
    """MB/s of single operations on the same documents, nothing remembered from one to the next."""
    from stages.corpus.operations.operation import Draft
    from stages.corpus.operations.registry import OPERATIONS
    from stages.corpus.statistics import words

    with documents.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    size = sum(len(text.encode()) for text in texts) / 1e6
    speeds = {}
    for name, parameters in ALONE.items():
        function = OPERATIONS.load(name).model_validate(parameters).function()
        function(Draft(texts[0], path="", language="en"))
        words.tokens.cache_clear()
        start = time.process_time()
        for text in texts:
            function(Draft(text, path="", language="en"))
        speeds[name] = size / max(time.process_time() - start, 1e-9)
    return speeds


def _extraction(data: Path, limit: int | None) -> dict[str, Any]:
    """Mean F1 of word 4-grams against the articles of news pages, for the operation and for the library alone."""
    import trafilatura

    from stages.corpus.operations.operation import Draft
    from stages.corpus.operations.registry import OPERATIONS

    gold = json.loads((data / "html-extraction" / "ground-truth.json").read_text())
    function = OPERATIONS.load("extract_html").model_validate({}).function()
    scores: dict[str, list[float]] = {"bloomline": [], "trafilatura": []}
    pages = sorted((data / "html-extraction" / "html").glob("*.html.gz"))[:limit]
    for path in pages:
        page = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        article = gold[path.name.removesuffix(".html.gz")]["articleBody"]
        made = function(Draft(page, path=path.name))
        scores["bloomline"].append(_f1(made.text if isinstance(made, Draft) else "", article))
        scores["trafilatura"].append(_f1(trafilatura.extract(page, include_comments=False) or "", article))
    return {"pages": len(pages), **{name: statistics.mean(values) for name, values in scores.items()}}


def _f1(found: str, gold: str) -> float:
    one, other = (
        {tuple(words[place : place + 4]) for place in range(max(len(words) - 3, 1))}
        for words in (re.findall(r"\w+", text.lower()) for text in (found, gold))
    )
    return 2 * len(one & other) / (len(one) + len(other))


def show(found: dict[str, Any]) -> None:
    print(f"filters: {found['documents']} documents, {found['megabytes']:.1f} MB, {' -> '.join(CHAIN)}")
    ours = found["bloomline"]
    for tool in ("bloomline", "datatrove"):
        row = found[tool]
        if "not_measured" in row:
            print(f"  {tool:10} not measured, because {row['not_measured']}")
            continue
        ratio = ours.get("megabytes_per_s", 0) / row["megabytes_per_s"]
        print(
            f"  {tool:10} {row['megabytes_per_s']:6.2f} MB/s of a core ({ratio:.1f}x), "
            f"{row['kept']} kept, peak {row['peak_megabytes']:.0f} MB"
        )
    for name, row in (found["differences"] or {}).items():
        print(f"  {name}: the same decision on {row['same']} of {row['of']}")
        for identity, (mine, their) in list(row["different"].items())[:SHOWN]:
            print(f"    {identity}: bloomline {mine}, datatrove {their}")
    print("alone: " + ", ".join(f"{name} {speed:.1f} MB/s" for name, speed in found["alone_megabytes_per_s"].items()))
    extraction = found["extraction"]
    print(
        f"extraction: F1 {extraction['bloomline']:.3f} on {extraction['pages']} pages, "
        f"trafilatura alone {extraction['trafilatura']:.3f}"
    )


def _ours(documents: Path, out: Path) -> None:
    """bloomline's side: the chain, timed; then each filter alone, for its decisions."""
    from stages.corpus.operations.operation import Draft, Drop
    from stages.corpus.operations.registry import OPERATIONS

    functions = {name: OPERATIONS.load(name).model_validate({}).function() for name in CHAIN}
    for function in functions.values():
        function(Draft("Loads what it needs.", path=""))
    start = time.process_time()
    kept = 0
    with documents.open(encoding="utf-8") as lines, (out / "kept.jsonl").open("w", encoding="utf-8") as written:
        for line in lines:
            row = json.loads(line)
            draft: Draft | Drop = Draft(row["text"], path=row["id"])
            for function in functions.values():
                draft = function(draft)  # type: ignore[arg-type]
                if isinstance(draft, Drop):
                    break
            else:
                written.write(json.dumps({"id": row["id"], "text": draft.text}, ensure_ascii=False) + "\n")  # type: ignore[union-attr]
                kept += 1
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    decisions: dict[str, dict[str, str]] = {name: {} for name in CHAIN}
    with documents.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            for name, function in functions.items():
                found = function(Draft(row["text"], path=row["id"]))
                if isinstance(found, Drop):
                    decisions[name][row["id"]] = found.rule
    (out / "decisions.json").write_text(json.dumps(decisions))
    print(json.dumps({"seconds": seconds, "kept": kept, "peak_bytes": peak}))


if __name__ == "__main__":
    _ours(Path(sys.argv[1]), Path(sys.argv[2]))
