"""The stages by name. One literal table; modules are imported only for the stages that a pipeline names.

To add a stage: write `stages/NAME.py`, add a line here, a YAML in `conf/NAME/` and a test.
"""

from __future__ import annotations

import importlib

from stages.base import Stage

STAGES: dict[str, str] = {
    "corpus": "stages.corpus.ingest:IngestCorpus",
    "remove": "stages.corpus.remove:RemoveDocuments",
    "ngram": "stages.corpus.ngram:TrainNgram",
    "tokenizer": "stages.corpus.tokenizer:TrainTokenizer",
    "model_tokenizer": "stages.huggingface.model_tokenizer:ModelTokenizer",
    "tokens": "stages.corpus.tokens:TokenizeCorpus",
    "pretrain": "stages.training.pretrain:Pretrain",
    "import": "stages.huggingface.import_model:ImportModel",
    "moe": "stages.experts.moe:ConvertToExperts",
    "quantize": "stages.quantization.quantize:Quantize",
    "evaluate": "stages.evaluation.evaluate:Evaluate",
    "export": "stages.huggingface.export_model:ExportModel",
    "deploy": "stages.serving.deploy:Deploy",
}


def load(name: str) -> type[Stage]:
    """The stage class registered under `name`. Raises KeyError for an unknown name."""
    module, _, attribute = STAGES[name].partition(":")
    stage: type[Stage] = getattr(importlib.import_module(module), attribute)
    return stage
