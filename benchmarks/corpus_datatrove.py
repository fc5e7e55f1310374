"""Runs the filters of datatrove, with an interpreter that has it. Imports nothing from bloomline.

python corpus_datatrove.py DOCUMENTS.jsonl OUT     times the pipeline; decisions of each filter go to OUT/decisions.json
"""

import json
import resource
import sys
import time
from pathlib import Path


def main(documents: Path, out: Path) -> None:
    try:
        from datatrove.data import Document
        from datatrove.executor import LocalPipelineExecutor
        from datatrove.pipeline.filters import (
            C4QualityFilter,
            FineWebQualityFilter,
            GopherQualityFilter,
            GopherRepetitionFilter,
        )
        from datatrove.pipeline.readers import JsonlReader
        from datatrove.pipeline.writers import JsonlWriter
        from datatrove.utils.text import split_into_words
        from loguru import logger
    except ImportError as error:
        print(json.dumps({"reason": f"datatrove can't be imported: {error}"}))
        return
    logger.remove()
    filters = {
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "fineweb_quality": FineWebQualityFilter(),
        "c4_quality": C4QualityFilter(),
    }
    try:
        split_into_words("Loads the tokenizer.")
    except Exception as error:  # its own error for a missing tokenizer
        print(json.dumps({"reason": f"datatrove can't split words: {error}"}))
        return
    start = time.process_time()
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(documents.parent), glob_pattern=documents.name),
            *filters.values(),
            JsonlWriter(str(out / "kept"), output_filename="${rank}.jsonl", compression=None),
        ],
        tasks=1,
        workers=1,
        logging_dir=str(out / "logs"),
    ).run()
    seconds = time.process_time() - start
    with documents.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    decisions: dict[str, dict[str, str]] = {name: {} for name in filters}
    for row in rows:
        for name, kind in filters.items():
            found = kind.filter(Document(text=row["text"], id=row["id"]))
            if found is not True:
                decisions[name][row["id"]] = found[1] if isinstance(found, tuple) else "dropped"
    (out / "decisions.json").write_text(json.dumps(decisions))
    kept = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (out / "kept").glob("*.jsonl"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "kept": kept, "peak_bytes": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
