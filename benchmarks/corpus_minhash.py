"""Near-duplicates beside peers: the rule of bloomline, datatrove, and the bare libraries datasketch and rensa.

Documents are those of messy/; the editions of one chapter are gold families. Seconds are of processor time end to end:
reading documents, signatures, buckets, clusters, and what is kept written down (for the bare libraries: in memory, no
files). Precision and recall are of pairs in one cluster among the documents with a gold family.
"""

from __future__ import annotations

import gzip
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, for a process of its own

FILES = {
    "near-duplicates-war-and-peace.jsonl.gz": "text",
    "ewt-web-text.jsonl.gz": "text",
    "spamassassin-raw.jsonl.gz": "raw",
}
BANDS, ROWS = 14, 8  # of all, as is datatrove's default; ours is measured with its own as well
Pairs = Iterable[tuple[str, str]]


def measure(data: Path, folder: Path, peer_python: str) -> dict[str, Any]:
    """What each side did, by its name."""
    folder.mkdir()
    documents = folder / "minhash.jsonl"
    rows = []
    for name, field in FILES.items():
        with gzip.open(data / "messy" / name, "rt", encoding="utf-8") as lines:
            found_rows = [json.loads(line) for line in lines]
        rows += [
            {"id": f"{row.get('family', '')}|{row['id']}", "text": row[field].encode("utf-8", "replace").decode()}
            for row in found_rows
        ]
    documents.write_text("".join(json.dumps({"id": row["id"], "text": row["text"]}) + "\n" for row in rows))
    size = sum(len(row["text"].encode()) for row in rows)
    runs = {
        "bloomline, 25 x 5": [sys.executable, __file__, "ours", "25", "5"],
        "bloomline, 14 x 8": [sys.executable, __file__, "ours", str(BANDS), str(ROWS)],
        "datatrove, 14 x 8": [peer_python, str(Path(__file__).with_name("corpus_datatrove_minhash.py"))],
        "datasketch alone, 14 x 8": [sys.executable, __file__, "datasketch", str(BANDS), str(ROWS)],
        "rensa alone, 14 x 8": [sys.executable, __file__, "rensa", str(BANDS), str(ROWS)],
    }
    found = {}
    for number, (name, command) in enumerate(runs.items()):
        done = subprocess.run(
            [*command, str(documents), str(folder / f"run-{number}")], capture_output=True, text=True, check=False
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            found[name] = {"reason": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
            continue
        told = json.loads(lines[-1])
        if "reason" not in told:
            told |= _quality(told.pop("clusters"))
            told["megabytes_per_second"] = size / 1e6 / told["seconds"]
        found[name] = told
    return found


def show(found: dict[str, Any]) -> None:
    print(f"\n{'near-duplicates':26}{'MB/s':>8}{'peak MiB':>10}{'precision':>11}{'recall':>8}{'dropped':>9}")
    for name, told in found.items():
        if "reason" in told:
            print(f"{name:26}not measured, because {told['reason']}")
            continue
        quality = f"{told['precision']:>11.3f}{told['recall']:>8.3f}{told['dropped']:>9}"
        print(f"{name:26}{told['megabytes_per_second']:>8.2f}{told['peak_mib']:>10.0f}{quality}")


def _quality(clusters: list[list[str]]) -> dict[str, float]:
    """Of pairs of documents that have a gold family, which stands before the "|" of an id."""
    known = [[id_ for id_ in cluster if _family(id_)] for cluster in clusters]
    pairs = {pair for cluster in known for pair in itertools.combinations(sorted(cluster), 2)}
    right = {(one, other) for one, other in pairs if _family(one) == _family(other)}
    return {
        "precision": len(right) / max(len(pairs), 1),
        "dropped": sum(len(cluster) - 1 for cluster in clusters),
        "recall": len(right) / GOLD_PAIRS,
    }


GOLD_PAIRS = 198  # 66 chapters in three editions


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
    from stages.corpus.stage import IngestCorpus
    from tests.support import run_stage

    lines = [json.loads(line) for line in documents.read_text().splitlines()]
    named = out / "named.jsonl"
    out.mkdir(parents=True)
    named.write_text("".join(json.dumps({"path": row["id"], "text": row["text"]}) + "\n" for row in lines))
    source = {"reader": {"kind": "files", "paths": [str(named)]}}
    rule = {"rule": "near", "bands": bands, "rows": rows}
    stage = IngestCorpus(sources={"messy": source}, deduplicate=[rule], min_characters=1)
    corpus, _ = run_stage(stage, {}, out)
    table = sorted(corpus.families().to_pylist(), key=lambda row: row["family"])
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
    start = time.process_time()
    clusters = sides[side](Path(documents), Path(out), int(bands), int(rows))
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "clusters": clusters}))


if __name__ == "__main__":
    main()
