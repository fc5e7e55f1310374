"""Compares the removal of near-duplicates in bloomline, in datatrove, and with datasketch and rensa alone.

The documents are those of messy/. The editions of one chapter are gold families, against which precision and recall of
pairs are computed. To measure speed, the documents are repeated with some words replaced, so that costs that do not
depend on the size of the corpus (imports, figures, the data card) weigh less. Seconds are processor time end to end:
reading documents, signatures, buckets, clusters, and writing the kept documents. The libraries alone work in memory.
"""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script in a separate process

FILES = {
    "near-duplicates-war-and-peace.jsonl.gz": "text",
    "ewt-web-text.jsonl.gz": "text",
    "spamassassin-raw.jsonl.gz": "raw",
}
BANDS, ROWS = 14, 8  # for every tool, as datatrove's default; bloomline is also measured with its default
OURS, PEER = f"bloomline, {BANDS} x {ROWS}", f"datatrove, {BANDS} x {ROWS}"
QUICK_DOCUMENTS = 60  # of each file
CHANGED = (0.005, 0.02, 0.1, 0.4)  # the share of the words of a repeated document that are replaced
SHOWN = 8  # documents with different decisions
TIMEOUT_S = 3600
Pairs = Iterable[tuple[str, str]]
Row = dict[str, str]


def measure(data: Path, folder: Path, peer_python: str, megabytes: int | None) -> dict[str, Any]:
    """The result of each tool, by its name, for the original documents and for `megabytes` of enlarged ones.

    `megabytes` None: a subset of the original documents only.
    """
    folder.mkdir()
    rows = list(_documents(data, QUICK_DOCUMENTS if megabytes is None else None))
    found = {"as they are": _measured(rows, folder / "gold", peer_python)}
    if megabytes is not None:
        found["enlarged"] = _measured(_enlarged(rows, megabytes * 1_000_000), folder / "large", peer_python)
    return found


def _documents(data: Path, limit: int | None) -> Iterable[Row]:
    for name, field in FILES.items():
        with gzip.open(data / "messy" / name, "rt", encoding="utf-8") as lines:
            for line in itertools.islice(lines, limit):
                row = json.loads(line)
                id_ = f"{row.get('family', '')}|{row['id']}"
                yield {"id": id_, "path": id_, "text": row[field].encode("utf-8", "replace").decode()}


def _enlarged(rows: list[Row], size: int) -> list[Row]:
    """Documents of `size` bytes together. Those after the first round have changed words and no gold family."""
    draw, found = random.Random(0), []
    words = [word for row in rows[:200] for word in row["text"].split()]
    for round_ in itertools.count():
        for row in rows:
            text = row["text"].split(" ")
            if round_:
                for _ in range(max(int(len(text) * draw.choice(CHANGED)), 1)):
                    text[draw.randrange(len(text))] = draw.choice(words)
            id_ = f"|{row['id']}#{round_}"
            found.append({"id": id_, "path": id_, "text": " ".join(text)})
            size -= len(found[-1]["text"].encode())
            if size <= 0:
                return found
    raise AssertionError


def _measured(rows: list[Row], folder: Path, peer_python: str) -> dict[str, Any]:
    folder.mkdir()
    documents = folder / "documents.jsonl"
    documents.write_text("".join(json.dumps(row) + "\n" for row in rows))
    size = sum(len(row["text"].encode()) for row in rows)
    runs = {
        "bloomline, 25 x 5": [sys.executable, __file__, "ours", "25", "5"],
        OURS: [sys.executable, __file__, "ours", str(BANDS), str(ROWS)],
        PEER: [peer_python, str(Path(__file__).with_name("corpus_datatrove_minhash.py"))],
        "datasketch alone, 14 x 8": [sys.executable, __file__, "datasketch", str(BANDS), str(ROWS)],
        "rensa alone, 14 x 8": [sys.executable, __file__, "rensa", str(BANDS), str(ROWS)],
    }
    sides: dict[str, Any] = {}
    families: dict[str, set[str]] = {}  # the documents that each tool has in a family
    for number, (name, command) in enumerate(runs.items()):
        result = _result([*command, str(documents), str(folder / f"run-{number}")])
        if "reason" not in result:
            clusters = result.pop("clusters")
            families[name] = {id_ for cluster in clusters for id_ in cluster}
            result |= _quality(clusters, rows)
            result["megabytes_per_second"] = size / 1e6 / result["seconds"]
        sides[name] = result
    different = sorted(families[OURS] ^ families[PEER]) if {OURS, PEER} <= families.keys() else []
    return {
        "documents": len(rows),
        "megabytes": size / 1e6,
        "sides": sides,
        "in a family of one alone": {id_: OURS if id_ in families[OURS] else PEER for id_ in different},
    }


def _result(command: list[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"reason": str(error)}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"reason": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def show(found: dict[str, Any]) -> None:
    for kind, measured in found.items():
        what = f"near-duplicates, {measured['documents']} documents {kind}, {measured['megabytes']:.1f} MB"
        print(f"\n{what:56}{'MB/s':>8}{'peak MiB':>10}{'precision':>11}{'recall':>8}{'dropped':>9}")
        peer = measured["sides"][PEER].get("megabytes_per_second")
        for name, result in measured["sides"].items():
            if "reason" in result:
                print(f"  {name:26}not measured, because {result['reason']}")
                continue
            speed = result["megabytes_per_second"]
            ratio = f"{speed / peer:.1f}x" if peer else ""
            gold = "".join(f"{result[key]:>{width}.3f}" if key in result else " " * width
                           for key, width in (("precision", 11), ("recall", 8)))  # fmt: skip
            print(f"  {name:38}{ratio:>16}{speed:>8.2f}{result['peak_mib']:>10.0f}{gold}{result['dropped']:>9}")
        alone = measured["in a family of one alone"]
        by_side = ", ".join(f"{count} of {name}" for name, count in sorted(Counter(alone.values()).items()))
        print(f"  in a family of one alone: {len(alone)} of {measured['documents']} documents; {by_side or 'none'}")
        for id_, name in list(alone.items())[:SHOWN]:
            print(f"    {id_}: {name}")


def _quality(clusters: list[list[str]], rows: list[Row]) -> dict[str, float]:
    """Precision and recall of pairs of documents that have a gold family: the part of an id before the "|"."""
    known = [[id_ for id_ in cluster if _family(id_)] for cluster in clusters]
    pairs = {pair for cluster in known for pair in itertools.combinations(sorted(cluster), 2)}
    right = {(one, other) for one, other in pairs if _family(one) == _family(other)}
    sizes = Counter(family for family in (_family(row["id"]) for row in rows) if family)
    gold = sum(size * (size - 1) // 2 for size in sizes.values())
    dropped: dict[str, float] = {"dropped": sum(len(cluster) - 1 for cluster in clusters)}
    return dropped | ({"precision": len(right) / max(len(pairs), 1), "recall": len(right) / gold} if gold else {})


def _family(id_: str) -> str:
    return id_.partition("|")[0]


def _clusters(ids: list[str], pairs: Pairs) -> list[list[str]]:
    parents = {id_: id_ for id_ in ids}

    def root(id_: str) -> str:
        while parents[id_] != id_:
            id_ = parents[id_]
        return id_

    for one, other in pairs:
        parents[root(one)] = root(other)
    groups: dict[str, list[str]] = {}
    for id_ in ids:
        groups.setdefault(root(id_), []).append(id_)
    return [group for group in groups.values() if len(group) > 1]


def _ours(documents: Path, out: Path, bands: int, rows: int) -> list[list[str]]:
    from stages.corpus.ingest import IngestCorpus
    from tests.support import run_stage

    out.mkdir(parents=True)
    source = {"reader": {"kind": "files", "paths": [str(documents)]}}
    rule = {"rule": "near", "bands": bands, "rows": rows}
    stage = IngestCorpus(sources={"messy": source}, deduplicate=[rule], min_characters=1)
    corpus, _ = run_stage(stage, {}, out)
    table = sorted(corpus.families(), key=lambda row: row["family"])
    return [[row["path"] for row in members] for _, members in itertools.groupby(table, lambda row: row["family"])]


def _shingles(text: str) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[place : place + 5]) for place in range(max(len(words) - 4, 1))}


def _datasketch(documents: Path, out: Path, bands: int, rows: int) -> list[list[str]]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    pairs, ids = [], []
    for line in documents.open():
        row = json.loads(line)
        sketch = MinHash(num_perm=bands * rows, seed=1)
        sketch.update_batch([shingle.encode() for shingle in _shingles(row["text"])])
        pairs += [(row["id"], other) for other in index.query(sketch)]
        index.insert(row["id"], sketch)
        ids.append(row["id"])
    return _clusters(ids, pairs)


def _rensa(documents: Path, out: Path, bands: int, rows: int) -> list[list[str]]:
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(0.7, bands * rows, bands)
    pairs, ids = [], []
    for number, line in enumerate(documents.open()):
        row = json.loads(line)
        sketch = RMinHash(num_perm=bands * rows, seed=1)
        sketch.update(list(_shingles(row["text"])))
        ids.append(row["id"])
        pairs += [(row["id"], ids[other]) for other in index.query(sketch)]
        index.insert(number, sketch)
    return _clusters(ids, pairs)


def main() -> None:
    side, bands, rows, documents, out = sys.argv[1:]
    sides: dict[str, Callable[[Path, Path, int, int], list[list[str]]]] = {
        "ours": _ours, "datasketch": _datasketch, "rensa": _rensa,
    }  # fmt: skip
    if side == "ours":  # datatrove, too, is imported before its time is measured
        importlib.import_module("stages.corpus.ingest")
        importlib.import_module("tests.support")
    start = time.process_time()
    clusters = sides[side](Path(documents), Path(out), int(bands), int(rows))
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "peak_mib": _peak_mib(), "clusters": clusters}))


def _peak_mib() -> float:
    """The peak memory of this program. The value of getrusage can include the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


if __name__ == "__main__":
    main()
