"""Trains a tokenizer: byte-level BPE with BLOOM's pre-tokenizer and special tokens (arXiv 2211.05100, section 3.2).

Bytes are the alphabet, so every text has tokens and decodes to itself; the step fails if one does not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from stages.artifacts.corpus import Corpus, Document
from stages.artifacts.encoding import encode_batch
from stages.artifacts.manifest import Split
from stages.artifacts.tokenizer import SPECIAL_TOKENS, Tokenizer, TokenizerForecast
from stages.base import Context, Stage, StageError, Stopped
from stages.corpus.tokenization.fertility import FertilityGate
from stages.corpus.tokenization.mixing import Mixing

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LoadedTokenizer

# Words with their leading space; text between them (punctuation, brackets, runs of white space) stays together.
# Sentence marks of the Latin, Chinese, Devanagari and Arabic scripts end a word.
BLOOM_PATTERN = r" ?[^(\s|[.,!?…。，、।۔،])]+"

_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
_WITHIN_SPECIAL = re.compile(
    "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in SPECIAL_TOKENS)
)

# Training takes time quadratic in the length of a word, so longer runs of characters of words, and of characters
# between them, count as several. Words of base64 have megabytes; those of languages without spaces are far shorter.
LONGEST_WORD = 1000  # characters
_LONG = f"{{{LONGEST_WORD + 1},}}"
_MARKS = "(|.,!?…。，、।۔،)"
# Of characters of words, and of characters between words; those that may be either are in both.
_LONG_RUNS = (
    re.compile(rf"(?<![^ \t\n\r{_MARKS}])[^ \t\n\r{_MARKS}]{_LONG}"),
    re.compile(rf"(?<![\s{_MARKS}])[\s{_MARKS}]{_LONG}"),
)

POLL_S = 0.2
BATCH_BYTES = 1 << 22
CHECK_BYTES = 16 << 20  # of held-out text for the round trip and the count of tokens

# Texts that some tokenizers lose or change.
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
    """Trains a byte-level BPE tokenizer on the training documents of a corpus."""

    headline: ClassVar[str | None] = "bytes_per_token"
    spawns: ClassVar[bool] = False
    # 3: a word of more than LONGEST_WORD characters counts as several in training.
    version: ClassVar[str] = "3"

    corpus: Corpus
    vocab_size: int = Field(default=250_680, ge=256 + len(SPECIAL_TOKENS), le=1 << 24)  # special tokens included
    sample_bytes: PositiveInt = 1_000_000_000  # of training text, about: a uniform sample of documents
    alpha: PositiveFloat = Field(
        default=1.0, le=1
    )  # exponent for languages in the sample: below 1, small ones get more
    min_frequency: PositiveInt = 2  # of a pair of tokens that is merged
    fertility: FertilityGate | None = None  # a limit on the tokens per word of each language

    def forecast(self) -> TokenizerForecast:
        return TokenizerForecast(tokenizer_of="")

    def run(self, ctx: Context) -> Tokenizer:
        if self.fertility is not None and not self.corpus.manifest.size("validation").documents:
            raise StageError(
                "fertility is measured on validation documents, and the corpus has none: set validation_fraction of "
                "its step above 0, or fertility: null"
            )
        trained = self._train(ctx, self._sample(ctx))
        tokenizer = Tokenizer(ctx.out)
        trained.save(str(tokenizer.file), pretty=False)

        loaded = tokenizer.load()
        if (size := loaded.get_vocab_size()) < self.vocab_size:
            ctx.note(f"the sample gives {size} tokens, fewer than vocab_size {self.vocab_size}")
        verify_round_trip(loaded, list(ADVERSARIAL))
        text_bytes = tokens = 0
        for batch in batches(self.corpus, CHECK_BYTES):
            tokens += verify_round_trip(loaded, batch)
            text_bytes += sum(len(text.encode()) for text in batch)
        ctx.metrics({"vocab_size": size, "bytes_per_token": text_bytes / tokens, "checked_megabytes": text_bytes / 1e6})
        if self.fertility is not None:
            self._check_fertility(ctx, loaded, self.fertility)
        return tokenizer

    def _train(self, ctx: Context, texts: Iterable[list[str]]) -> LoadedTokenizer:
        from tokenizers.trainers import BpeTrainer

        trained = bloom_tokenizer()
        trainer = BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=_byte_alphabet(),
            show_progress=False,
        )
        parts = (_without_long_words(_without_special_tokens(batch)) for batch in texts)
        _stoppable(ctx, partial(trained.train_from_iterator, parts, trainer))
        return trained

    def _check_fertility(self, ctx: Context, tokenizer: LoadedTokenizer, gate: FertilityGate) -> None:
        from stages.corpus.tokenization.fertility import behind, fertilities, fertility_figure

        found = fertilities(self.corpus, tokenizer, gate, partial(self._train, ctx))
        for language, value in found.items():
            label = re.sub(r"[^A-Za-z0-9_.-]", "_", language)
            ctx.metrics({f"fertility_{label}": value.shared, f"fertility_excess_{label}": value.excess})
        ctx.figure("fertility", fertility_figure(found, gate))
        if missing := [language for language in gate.languages if language not in found]:
            ctx.note(f"there is too little text to measure the fertility of {', '.join(missing)}")
        if complaints := behind(found, gate):
            if gate.otherwise == "fail":
                raise StageError(
                    f"the tokenizer is not fair to {len(complaints)} of {len(found)} languages; "
                    f"{'; '.join(complaints)}: lower alpha, raise vocab_size or max_excess, or set otherwise: warn"
                )
            for complaint in complaints:
                ctx.note(f"warning: {complaint}")

    def _sample(self, ctx: Context) -> Iterator[list[str]]:
        """Batches of training texts: all, or a uniform sample of all shards."""
        size = self.corpus.manifest.size("train").bytes
        total = min(self.sample_bytes, size)
        batch: list[str] = []
        read = pending = 0
        for document in self._sampled(total, total / size):
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
        ctx.progress(read, total, "bytes", tokenizer="merging words")

    def _sampled(self, total: int, fraction: float) -> Iterator[Document]:
        """The documents of the sample: about `total` bytes, the given fraction of the training split."""
        if self.alpha == 1:
            return self.corpus.documents("train", fraction=fraction)
        mixing = Mixing(by="language", alpha=self.alpha, max_epochs=1, total_bytes=total)
        epochs = mixing.epochs(mixing.sizes(self.corpus.documents("train")))
        return mixing.mixed(lambda: self.corpus.documents("train"), epochs)


def bloom_tokenizer() -> LoadedTokenizer:
    """An untrained byte-level BPE tokenizer with BLOOM's pre-tokenizer."""
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
    """Encode and decode texts; returns the number of tokens. Raises StageError for the first text that changes."""
    encoded = encode_batch(tokenizer, texts)
    for text, ids, decoded in zip(
        texts, encoded, tokenizer.decode_batch(encoded, skip_special_tokens=False), strict=True
    ):
        if decoded != text:
            place = next((i for i, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), len(decoded))
            raise StageError(
                f"the tokenizer does not decode a text to itself: {text[place : place + 40]!r} at character {place} "
                f"became {decoded[place : place + 40]!r}"
            )
        if special := [SPECIAL_TOKENS[index] for index in ids if index < len(SPECIAL_TOKENS)]:
            raise StageError(f"the tokenizer takes text for its special token {special[0]}: {text[:40]!r}")
    return sum(map(len, encoded))


def _without_special_tokens(texts: list[str]) -> list[str]:
    """The texts, divided within every "</s>" and other special token.

    A token that merges form of these letters would be the special token, which is already in the vocabulary.
    """
    return [part for text in texts for part in (_WITHIN_SPECIAL.split(text) if _SPECIAL.search(text) else (text,))]


def _without_long_words(texts: list[str]) -> list[str]:
    """The texts, divided so that no word has more than LONGEST_WORD characters and its leading space."""
    for pattern in _LONG_RUNS:
        texts = [part for text in texts for part in (_divided(text, pattern) if len(text) > LONGEST_WORD else (text,))]
    return texts


def _divided(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    start = 0
    for run in pattern.finditer(text):
        for cut in range(run.start() + LONGEST_WORD, run.end(), LONGEST_WORD):
            yield text[start:cut]
            start = cut
    yield text[start:]


def _stoppable(ctx: Context, train: Callable[[], None]) -> None:
    """Call `train` in a thread, since it may take hours without returning to Python.

    Raises Stopped within POLL_S of a request to stop; the thread then ends with the process.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            train()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="tokenizer", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        if thread.is_alive() and ctx.stopping():
            raise Stopped
    if failures:
        raise failures[0]


def batches(corpus: Corpus, limit_bytes: int) -> Iterator[list[str]]:
    """About `limit_bytes` of validation texts (training texts if there are none) from all shards, in batches."""
    split: Split = "validation" if corpus.manifest.size("validation").documents else "train"
    batch: list[str] = []
    pending = 0
    for document in corpus.documents(split, fraction=limit_bytes / corpus.manifest.size(split).bytes):
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
