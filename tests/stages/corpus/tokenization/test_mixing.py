"""Mixtures: the requested shares, no group above its cap, the same draw on every run, the document of every token."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.artifacts.corpus import Corpus
from stages.artifacts.sample_order import shuffled
from stages.base import StageError
from stages.corpus.tokenization.mixing import Mixing, times_drawn
from stages.corpus.tokenizer import TrainTokenizer
from stages.corpus.tokens import TokenizeCorpus
from tests.stages.corpus.examples import digests, ingest, prose, source, write_lines
from tests.support import run_stage

SIZES = {"en": 1_000_000, "fr": 100_000, "sw": 1_000}
sizes = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**9), min_size=1)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_shares_are_powers_of_sizes(alpha: float) -> None:
    epochs = Mixing(alpha=alpha, max_epochs=1000).epochs(SIZES)
    total = sum(size**alpha for size in SIZES.values())
    for name, size in SIZES.items():
        assert epochs[name] * size == pytest.approx(size**alpha / total * sum(SIZES.values()))


@given(sizes, st.floats(0, 1), st.floats(0.1, 10), st.integers(1, 10**10))
def test_no_group_passes_the_cap_and_the_rest_goes_to_others(
    held: dict[str, int], alpha: float, cap: float, total: int
) -> None:
    epochs = Mixing(alpha=alpha, max_epochs=cap, total_bytes=total).epochs(held)
    assert all(0 <= epochs[name] <= cap * (1 + 1e-9) for name in held)
    drawn = sum(epochs[name] * held[name] for name in held)
    assert drawn == pytest.approx(min(total, cap * sum(held.values())), rel=1e-6)
    free = {name: size for name, size in held.items() if epochs[name] < cap * (1 - 1e-9)}
    units = [epochs[name] * size / size**alpha for name, size in free.items()]
    assert not units or max(units) == pytest.approx(min(units))  # in proportion among those below the cap


@pytest.mark.parametrize("epochs", [0.0, 0.3, 1.0, 2.7])
def test_the_draw_is_within_binomial_bounds(epochs: float) -> None:
    draw = random.Random(0)
    drawn = [times_drawn(f"{draw.getrandbits(128):032x}", epochs) for _ in range(20_000)]
    assert set(drawn) <= {math.floor(epochs), math.ceil(epochs)}
    part = epochs % 1
    assert abs(sum(drawn) - epochs * 20_000) <= 4 * math.sqrt(20_000 * part * (1 - part)) + 1e-6


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    counts = {"en": 400, "fr": 100, "sw": 20}
    sources = {}
    for place, (name, count) in enumerate(counts.items()):
        records = [{"text": prose(1000 * place + number)} for number in range(count)]
        sources[name] = source(write_lines(folder / f"{name}.jsonl", records), language=name)
    return ingest(folder, sources=sources)[0]


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_what_training_draws_is_the_mixture(corpus: Corpus, tmp_path: Path, alpha: float) -> None:
    tokenizer, _ = run_stage(TrainTokenizer(corpus="c", vocab_size=400), {"c": corpus}, tmp_path / "tokenizer")
    mixing = {"by": "language", "alpha": alpha, "max_epochs": 10}
    stage = TokenizeCorpus(corpus="c", tokenizer="t", mixing=mixing)
    runs = [run_stage(stage, {"c": corpus, "t": tokenizer}, tmp_path / name) for name in ("one", "two")]
    assert digests(runs[0][0].path) == digests(runs[1][0].path)
    dataset, context = runs[0]
    split = dataset.split("train")
    held = Mixing(by="language").sizes(corpus.documents("train"))
    total = sum(size**alpha for size in held.values())
    samples = split.length // 64
    order = [shuffled(number, samples, seed=1) for number in range(samples // 2)]
    seen = [split.document_at(sample * 64).language for sample in order]
    for name, size in held.items():
        share = size**alpha / total
        assert context.last[f"share_{name}"] == pytest.approx(share)
        # documents are drawn, and then samples of them: both spread
        assert abs(seen.count(name) / len(seen) - share) < 4 * math.sqrt(share * (1 - share) / len(seen)) + 0.05
    texts = {document.id: document.text for document in corpus.documents("train")}
    loaded = tokenizer.load()
    for place in range(0, len(split), 37):
        found = split.document(place)
        assert loaded.decode(split.tokens[found.start : found.stop - 1].tolist()) == texts[found.id]


def test_fixed_ratios_of_groups(corpus: Corpus) -> None:
    mixing = Mixing(by="language", groups={"rare": ("fr", "sw")}, ratios={"en": 1, "rare": 3}, max_epochs=100)
    held = mixing.sizes(corpus.documents("train"))
    epochs = mixing.epochs(held)
    assert epochs["rare"] * held["rare"] == pytest.approx(3 * epochs["en"] * held["en"])
    assert Mixing(ratios={"en": 1}).epochs(SIZES)["fr"] == 0
    with pytest.raises(StageError, match="contains en, fr, sw"):
        Mixing(ratios={"de": 1}).epochs(SIZES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratios": {"en": 1}, "alpha": 0.3}, "set one of them"),
        ({"ratios": {"en": 0}}, "greater than 0"),
        ({"groups": {"a": ["x"], "b": ["x"]}}, "twice"),
        ({"groups": {"a": ["x"]}, "ratios": {"en": 1}}, "no ratio"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Mixing.model_validate(fields)
