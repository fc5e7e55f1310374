"""Trains a tokenizer: byte-level BPE with BLOOM's pre-tokenizer and special tokens (arXiv 2211.05100, section 3.2).

Bytes are the alphabet, so any text has tokens and no text is lost; the step fails if one is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveInt

from stages.artifacts.corpus import Corpus
from stages.artifacts.tokenizer import SPECIAL_TOKENS, Tokenizer
from stages.base import Context, Stage, StageError, Stopped

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LoadedTokenizer

# Words with their leading space; what lies between them (punctuation, brackets, runs of white space) stays together.
# Sentence marks of the Latin, Chinese, Devanagari and Arabic scripts end a word.
BLOOM_PATTERN = r" ?[^(\s|[.,!?…。，、।۔،])]+"

BATCH_BYTES = 1 << 22
CHECK_BYTES = 16 << 20  # of held-out text that round trips and tokens are counted on

# Texts that tokenizers have been known to lose or change.
ADVERSARIAL = (
    "",
    " ",
    "\n\n\t \r\n",
    "a" * 5000,
    "  leading and trailing  ",
    "".join(chr(code) for code in range(1, 256)),
    "e\u0301 \u00e9 \ufb01 \u212b \ufdfa",  # not to be normalised
    "\u200b\u200d\ufeff\u2028\u2029\u00a0\u3000",
    "👩\u200d👩\u200d👧\u200d👦 🇫🇷 \U0010ffff \ue000 \ufffd",
    "नमस्ते। مرحبا، 你好。 ສະບາຍດີ",
    "".join(SPECIAL_TOKENS) + " </s > <s></s>",
    "def f(x):\n\treturn [x,  {'a': 1}]  # ĠĊ",
)


class TrainTokenizer(Stage):
    """Byte-level BPE over a corpus's training documents. Reads Corpus, leaves Tokenizer."""

    headline: ClassVar[str | None] = "bytes_per_token"

    corpus: Corpus
    vocab_size: int = Field(default=250_680, ge=256 + len(SPECIAL_TOKENS), le=1 << 24)  # special tokens included
    sample_bytes: PositiveInt = 1_000_000_000  # of training text, about: the documents with the smallest ids
    min_frequency: PositiveInt = 2  # of a pair of tokens, to be merged

    def run(self, ctx: Context) -> Tokenizer:
        from tokenizers.trainers import BpeTrainer

        trained = bloom_tokenizer()
        trainer = BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=_byte_alphabet(),
            show_progress=False,
        )
        trained.train_from_iterator(self._sample(ctx), trainer)
        tokenizer = Tokenizer(ctx.out)
        trained.save(str(tokenizer.file), pretty=False)

        loaded = tokenizer.load()
        if (size := loaded.get_vocab_size()) < self.vocab_size:
            ctx.note(f"the sample yields {size} tokens, fewer than vocab_size {self.vocab_size}")
        verify_round_trip(loaded, list(ADVERSARIAL))
        text_bytes = tokens = 0
        for batch in batches(self.corpus, CHECK_BYTES):
            tokens += verify_round_trip(loaded, batch)
            text_bytes += sum(len(text.encode()) for text in batch)
        ctx.metrics({"vocab_size": size, "bytes_per_token": text_bytes / tokens, "checked_megabytes": text_bytes / 1e6})
        return tokenizer

    def _sample(self, ctx: Context) -> Iterator[list[str]]:
        """Batches of training texts: all, or a fair sample of all shards."""
        size = self.corpus.manifest.size("train").bytes
        total = min(self.sample_bytes, size)
        batch: list[str] = []
        read = pending = 0
        for document in self.corpus.documents("train", fraction=total / size):
            size = len(document.text.encode())
            batch.append(document.text)
            read, pending = read + size, pending + size
            if pending >= BATCH_BYTES:
                if ctx.stopping():
                    raise Stopped
                ctx.progress(read, total, "bytes")
                yield batch
                batch, pending = [], 0
        yield batch


def bloom_tokenizer() -> LoadedTokenizer:
    """An untrained byte-level BPE tokenizer that splits text as BLOOM's does."""
    from tokenizers import Regex
    from tokenizers import Tokenizer as LoadedTokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.processors import ByteLevel as ByteLevelProcessor

    tokenizer = LoadedTokenizer(BPE())
    split = Split(Regex(BLOOM_PATTERN), "isolated")
    tokenizer.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.post_processor = ByteLevelProcessor(trim_offsets=False)
    return tokenizer


def verify_round_trip(tokenizer: LoadedTokenizer, texts: list[str]) -> int:
    """Encode and decode texts; the number of their tokens. Raises StageError at the first that comes back changed."""
    encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    for text, ids, decoded in zip(
        texts, encoded, tokenizer.decode_batch(encoded, skip_special_tokens=False), strict=True
    ):
        if decoded != text or any(index < len(SPECIAL_TOKENS) for index in ids):
            place = next((i for i, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), len(decoded))
            raise StageError(
                f"the tokenizer does not give back a text as it was: {text[place : place + 40]!r} at character {place} "
                f"came back as {decoded[place : place + 40]!r}"
            )
    return sum(map(len, encoded))


def batches(corpus: Corpus, limit_bytes: int) -> Iterator[list[str]]:
    """About `limit_bytes` of validation texts, of all shards alike, in batches."""
    batch: list[str] = []
    pending = 0
    for document in corpus.documents("validation", fraction=limit_bytes / corpus.manifest.size("validation").bytes):
        batch.append(document.text)
        pending += len(document.text.encode())
        if pending >= BATCH_BYTES:
            yield batch
            batch, pending = [], 0
    if batch:
        yield batch


def _byte_alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())
