"""The stages by name. One literal table; modules are imported only for the stages that a pipeline names.

To add a stage: write `stages/NAME.py`, add a line here, a YAML in `conf/NAME/` and a test.
"""

from __future__ import annotations

import importlib

from stages.base import Stage

STAGES: dict[str, str] = {
    "corpus": "stages.corpus.stage:IngestCorpus",
    "remove": "stages.corpus.remove:RemoveDocuments",
    "ngram": "stages.ngram:TrainNgram",
    "tokenizer": "stages.tokenizer:TrainTokenizer",
    "model_tokenizer": "stages.model_tokenizer:ModelTokenizer",
    "tokens": "stages.tokens:TokenizeCorpus",
    "pretrain": "stages.pretrain:Pretrain",
    "import": "stages.import_model:ImportModel",
    "moe": "stages.moe:ConvertToExperts",
    "quantize": "stages.quantize:Quantize",
    "evaluate": "stages.evaluate:Evaluate",
    "export": "stages.export_model:ExportModel",
    "deploy": "stages.deploy:Deploy",
}


def load(name: str) -> type[Stage]:
    """The stage class registered under `name`. Raises KeyError for an unknown name."""
    module, _, attribute = STAGES[name].partition(":")
    stage: type[Stage] = getattr(importlib.import_module(module), attribute)
    return stage
