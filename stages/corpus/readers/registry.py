"""The readers by name: what `reader.kind` may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.corpus.readers.csv_files import Csv
from stages.corpus.readers.datasets import Datasets
from stages.corpus.readers.files import Files
from stages.corpus.readers.html_files import Html
from stages.corpus.readers.installed import Installed
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.source_code import Code
from stages.corpus.readers.text_files import Text
from stages.corpus.readers.warc import Warc

AnyReader = Annotated[
    Installed | Files | Text | JsonLines | Parquet | Csv | Warc | Html | Code | Datasets, Field(discriminator="kind")
]
