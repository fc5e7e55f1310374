"""The readers by name: the values of `reader.kind`. Packages add readers by the entry points `bloomline.readers`."""

from __future__ import annotations

from typing import Annotated

from stages.corpus.readers.reader import Reader
from stages.registry import ChosenBy, Registry

READERS = Registry(
    "bloomline.readers",
    "a reader",
    Reader,
    {
        "installed": "stages.corpus.readers.installed:Installed",
        "documents": "stages.corpus.readers.documents:Documents",
        "files": "stages.corpus.readers.files:Files",
        "text": "stages.corpus.readers.text_files:Text",
        "jsonl": "stages.corpus.readers.jsonl:JsonLines",
        "parquet": "stages.corpus.readers.parquet:Parquet",
        "csv": "stages.corpus.readers.csv_files:Csv",
        "warc": "stages.corpus.readers.warc:Warc",
        "html": "stages.corpus.readers.html_files:Html",
        "code": "stages.corpus.readers.source_code:Code",
        "datasets": "stages.corpus.readers.datasets:Datasets",
    },
)

AnyReader = Annotated[Reader, ChosenBy(READERS, "kind")]
