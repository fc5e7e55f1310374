"""Takes the tokenizer of an existing model, for example an imported one, so that texts can be tokenized for it."""

from __future__ import annotations

import json
import shutil
from typing import ClassVar

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.tokenizer import SPECIAL, TOKENIZER, Tokenizer, TokenizerForecast, tokenizer_step
from stages.base import Context, Stage


class ModelTokenizer(Stage):
    """Copies the tokenizer that a model was trained with."""

    headline: ClassVar[str | None] = "vocab_size"
    spawns: ClassVar[bool] = False

    model: Checkpoint

    def forecast(self) -> TokenizerForecast:
        return TokenizerForecast(tokenizer_of=tokenizer_step(self.model))

    def run(self, ctx: Context) -> Tokenizer:
        shutil.copyfile(self.model.tokenizer_path, ctx.out / TOKENIZER)
        (ctx.out / SPECIAL).write_text(json.dumps({"end_of_text": self.model.config.eos_token_id}) + "\n")
        tokenizer = Tokenizer(ctx.out)
        ctx.metrics({"vocab_size": tokenizer.vocab_size})
        return tokenizer
