"""Gives a trained model the tokenizer of a new language, whose tokens begin with what aligned words say they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.encoding import encode_batch
from stages.artifacts.tokenizer import Tokenizer
from stages.base import Context, Stage, StageError
from stages.word_alignment.alignment import SIDES, WordAlignment

if TYPE_CHECKING:
    import numpy as np

    from stages.word_alignment.transferred_embeddings import Rows

HEAD = "lm_head.weight"


class TransferVocabulary(Stage):
    """Replaces the tokenizer of a model and starts the embeddings of its new tokens; all other weights stay.

    Tokens that both tokenizers have keep their embeddings. A step of `pretrain` whose `initial.checkpoint` this is
    continues in the new language.
    """

    headline: ClassVar[str | None] = "aligned_tokens"
    spawns: ClassVar[bool] = False

    model: Checkpoint
    tokenizer: Tokenizer  # of the new language
    alignment: WordAlignment | None = Field(
        None, description="between the model's language and the new one; null: new tokens are drawn at random"
    )
    model_language: str | None = Field(None, description="the language of the alignment that the model knows")
    translations: PositiveInt = Field(5, description="nearest words that a word's embedding is the mean of")
    seed: NonNegativeInt = Field(0, description="of the embeddings that are drawn")

    def run(self, ctx: Context) -> Checkpoint:
        import numpy as np

        from stages.word_alignment.transferred_embeddings import rows

        words, answers = self._translated() if self.alignment is not None else ([], [])
        new = self.tokenizer.load()
        found = rows(
            self.model.tokenizer().get_vocab(),
            new.get_vocab(),
            encode_batch(new, [f" {word}" for word in words]),
            answers,
        )
        counts = {"copied": len(found.copied), "aligned": len(found.weights), "drawn": len(found.drawn)}
        ctx.metrics({f"{name}_tokens": count for name, count in counts.items()})
        ctx.highlight(
            "vocabulary",
            f"Of {found.vocabulary} tokens {counts['copied']} keep their embedding, {counts['aligned']} begin as the "
            f"mean of translations, {counts['drawn']} are drawn at random.",
        )
        return self._save(ctx, found, np.random.default_rng(self.seed))

    def _translated(self) -> tuple[list[str], list[list[tuple[list[int], float]]]]:
        """The words of the new language; for each the old tokens and the CSLS of its nearest words."""
        from stages.csls import nearest
        from stages.word_alignment.checkpoint_vectors import token_ids
        from stages.word_alignment.linear import mapped

        assert self.alignment is not None
        languages = self.alignment.facts.languages
        if self.model_language not in languages:
            raise StageError(
                f"model_language is {self.model_language!r}; expected a language of the alignment: "
                f"{' or '.join(map(repr, languages))}"
            )
        tensors = self.alignment.tensors()
        sides = [self.alignment.side(side) for side in SIDES]
        vectors = [mapped(sides[0][1], tensors["mapping"]), sides[1][1]]
        densities = [tensors["source_densities"], tensors["target_densities"]]
        known = languages.index(self.model_language)
        written = token_ids(self.model, sides[known][0])
        indices, scores = nearest(
            vectors[1 - known], vectors[known], densities[1 - known], densities[known], self.translations
        )
        answers = [
            [(written[index], float(score)) for index, score in zip(*row, strict=True)]
            for row in zip(indices, scores, strict=True)
        ]
        return sides[1 - known][0], answers

    def _save(self, ctx: Context, found: Rows, generator: np.random.Generator) -> Checkpoint:
        import torch

        from stages.word_alignment.checkpoint_vectors import EMBEDDING, embeddings
        from stages.word_alignment.transferred_embeddings import filled

        used = self.model.tokenizer().get_vocab_size()  # further rows are padding

        def replaced(matrix: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
            return torch.from_numpy(filled(matrix[:used], found, generator)).to(dtype)

        embedding = embeddings(self.model)
        with self.model.open_tensors() as tensors:
            state = dict(tensors)
        state[EMBEDDING] = replaced(embedding, state[EMBEDDING].dtype)
        if HEAD in state:
            state[HEAD] = replaced(state[HEAD].float().numpy(), state[HEAD].dtype)
        size = {"vocab_size": found.vocabulary, "eos_token_id": self.tokenizer.end_of_text}
        config = self.model.config.model_copy(update=size)
        facts = {"vocabulary_of": self.model.facts, "copied_tokens": len(found.copied)}
        return Checkpoint.save(ctx.out, state, config, self.tokenizer.file, facts)
