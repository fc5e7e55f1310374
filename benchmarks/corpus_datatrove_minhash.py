"""Removes near-duplicates with datatrove, with an interpreter that has it. Imports nothing from bloomline.

python corpus_datatrove_minhash.py DOCUMENTS.jsonl OUT     four steps, default settings (14 x 8, runs of 5 words)
"""

import json
import struct
import sys
import time
from pathlib import Path


def main(documents: Path, out: Path) -> None:
    try:
        from datatrove.executor import LocalPipelineExecutor
        from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
        from datatrove.pipeline.readers import JsonlReader
        from datatrove.pipeline.writers import JsonlWriter
        from loguru import logger
    except ImportError as error:
        print(json.dumps({"reason": f"datatrove can't be imported: {error}"}))
        return
    logger.remove()
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    reader = JsonlReader(str(documents.parent), glob_pattern=documents.name)
    signatures, buckets, removed = (str(out / name) for name in ("signatures", "buckets", "removed"))
    steps = (
        [reader, MinhashDedupSignature(signatures, config=config)],
        [MinhashDedupBuckets(signatures, buckets, config=config)],
        [MinhashDedupCluster(buckets, removed, config=config, save_cluster_id=True)],
        [reader, MinhashDedupFilter(removed), JsonlWriter(str(out / "kept"), compression=None)],
    )
    start = time.process_time()
    for number, pipeline in enumerate(steps):
        tasks = 14 if number == 1 else 1
        log = str(out / f"log-{number}")
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir=log, skip_completed=False).run()
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) / 1024
    ids = [json.loads(line)["id"] for line in documents.open(encoding="utf-8")]
    clusters: dict[int, list[str]] = {}
    for file in Path(removed).glob("*.clusters"):
        data = file.read_bytes()
        for place, cluster in struct.iter_unpack("<II", data):
            clusters.setdefault(cluster, []).append(ids[place])
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "clusters": list(clusters.values())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
