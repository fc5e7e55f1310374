"""Compares corpus work in bloomline and datatrove on the same documents: filters, and near-duplicates.

    python benchmarks/corpus.py [--quick] [--data FOLDER] [--peer-python PYTHON] [--near-megabytes 60]

FOLDER holds the test data (default: BLOOMLINE_TEST_DATA). PYTHON is an interpreter with datatrove 0.10 and spaCy
(default: this one). Where datatrove cannot run, its columns state the reason. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import corpus_filters, corpus_minhash


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a subset of the documents, one round")
    parser.add_argument("--data", type=Path, default=os.environ.get("BLOOMLINE_TEST_DATA"))
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--near-megabytes", type=int, default=60, help="of the enlarged documents")
    arguments = parser.parse_args()
    if arguments.data is None or not Path(arguments.data).is_dir():
        parser.error("no data: give --data FOLDER, or set BLOOMLINE_TEST_DATA")
    with tempfile.TemporaryDirectory(prefix="bloomline-bench-") as directory:
        filters = corpus_filters.measure(
            Path(arguments.data), Path(directory), arguments.peer_python, quick=arguments.quick
        )
        near = corpus_minhash.measure(
            data=Path(arguments.data),
            folder=Path(directory) / "near",
            peer_python=arguments.peer_python,
            megabytes=None if arguments.quick else arguments.near_megabytes,
        )
    corpus_filters.show(filters)
    corpus_minhash.show(near)
    print(json.dumps({"filters": filters, "near_duplicates": near}))


if __name__ == "__main__":
    main()
