"""Evaluation as a whole, on a small model: all coders on the same bytes, and figures that follow from them."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from pipelines.fingerprint import fingerprint, payload
from pipelines.graph import Step
from stages.artifacts.checkpoint import Checkpoint, CheckpointForecast
from stages.artifacts.corpus import Corpus, first_words
from stages.artifacts.evaluation_report import REPORT, Bits, EvalReport, EvalResults
from stages.base import VERDICT, ArtifactError, StageError, edges
from stages.evaluation.evaluate import Evaluate, compared, verdict
from stages.model.config import ExpertsConfig
from stages.quantization.state_dict import quantize_state_dict
from tests.stages.corpus.examples import ingest, prose, small_corpus, source, write_lines
from tests.stages.model.models import byte_tokenizer, small_config, small_model
from tests.support import RecordingContext, run_stage

VOCABULARY = 260


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def uniform(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model for which all tokens of the vocabulary (the 256 bytes and 4 special ones) are equally likely."""
    folder = tmp_path_factory.mktemp("model")
    config = small_config(vocab_size=VOCABULARY, context_length=64)
    model = small_model(config)
    with torch.no_grad():
        model.get_parameter("ln_f.weight").zero_()
        model.get_parameter("ln_f.bias").zero_()
    return Checkpoint.save(folder / "model", model, config, byte_tokenizer(folder / "tokenizer.json"), {})


def evaluate(corpus: Corpus, model: Checkpoint, folder: Path, **fields: object) -> tuple[EvalReport, RecordingContext]:
    values = {"completion_tokens": 4, "prompts": ["word"], **fields}
    stage = Evaluate(model="model", corpus="corpus", **values)
    return run_stage(stage, {"corpus": corpus, "model": model}, folder)


@pytest.fixture(scope="module")
def evaluated(
    corpus: Corpus, uniform: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[EvalReport, RecordingContext]:
    return evaluate(corpus, uniform, tmp_path_factory.mktemp("evaluated"))


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary(
    evaluated: tuple[EvalReport, RecordingContext], corpus: Corpus
) -> None:
    report, context = evaluated
    total = report.results.total
    size = corpus.manifest.size("validation")
    assert (total.documents, total.bytes) == (size.documents, size.bytes)
    assert total.tokens == total.bytes + total.documents  # a token a byte, and the ends of text
    assert total.model == pytest.approx(total.tokens * math.log2(VOCABULARY), rel=1e-5)
    assert context.last["perplexity"] == pytest.approx(VOCABULARY, rel=1e-4)
    assert context.last["bits_per_byte"] == pytest.approx(total.model / total.bytes)


def test_xz_is_that_of_the_same_bytes(evaluated: tuple[EvalReport, RecordingContext], corpus: Corpus) -> None:
    results = evaluated[0].results
    texts: dict[str, list[bytes]] = {name: [] for name in results.sources}
    for document in sorted(corpus.documents("validation"), key=lambda document: document.id):
        texts[document.source].append(document.text.encode())

    def size(data: bytes) -> int:
        return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    for name, documents in texts.items():
        assert results.sources[name].xz == size(b"".join(documents))
        assert results.sources[name].xz_per_document == sum(map(size, documents))
    assert results.total.xz == size(b"".join(data for name in sorted(texts) for data in texts[name]))
    assert results.total.xz < sum(bits.xz for bits in results.sources.values())


def test_shows_figure_completions_and_a_verdict(evaluated: tuple[EvalReport, RecordingContext]) -> None:
    report, context = evaluated
    assert context.figures == ["bits_per_byte"]
    assert context.highlights[VERDICT] == verdict(report.results)
    assert context.highlights["baselines"] == compared(report.results)
    assert context.highlights["completion"].startswith("word → ")
    assert [completion.temperature for completion in report.results.completions] == [0, 0.8]
    assert {"books_bits_per_byte", "news_bits_per_byte", "ngram_bits_per_byte"} <= context.last.keys()
    assert json.loads(json.dumps(report.describe()))["bits per byte"]["model"] > 8


def test_long_documents_are_cut_for_all_coders_and_their_ends_are_not_scored(
    corpus: Corpus, uniform: Checkpoint, tmp_path: Path
) -> None:
    report, _ = evaluate(corpus, uniform, tmp_path, documents_per_source=3, document_bytes=100)
    total = report.results.total
    assert (total.documents, total.bytes) == (6, 600)
    assert total.tokens == 600


def test_documents_are_cut_at_the_end_of_a_character(uniform: Checkpoint, tmp_path: Path) -> None:
    records = [{"text": "日本語のテキスト" * 20 + str(number)} for number in range(40)]  # three bytes a character
    sources = {"news": source(write_lines(tmp_path / "news.jsonl", records))}
    corpus, _ = ingest(tmp_path / "corpus", sources=sources, validation_fraction=0.2)
    report, _ = evaluate(corpus, uniform, tmp_path / "evaluated", documents_per_source=2, document_bytes=100)
    total = report.results.total
    assert (total.documents, total.bytes, total.tokens) == (2, 2 * 99, 2 * 99)
    assert total.xz_per_document == 2 * 8 * len(
        lzma.compress(("日本語のテキスト" * 20).encode()[:99], preset=9 | lzma.PRESET_EXTREME)
    )


def test_measures_quantized_mixtures_of_experts(corpus: Corpus, tmp_path: Path) -> None:
    experts = ExpertsConfig(per_layer=(2, 2), top_k=1)
    config = small_config(vocab_size=VOCABULARY, context_length=64, experts=experts, initial_deviation=0.05)
    tokenizer = byte_tokenizer(tmp_path / "tokenizer.json")
    model = Checkpoint.save(tmp_path / "model", small_model(config), config, tokenizer, {})
    int8 = Checkpoint.save(tmp_path / "int8", *quantize_state_dict(model.state_dict(), config, "int8"), tokenizer, {})
    full, small = (
        evaluate(corpus, one, tmp_path / name, documents_per_source=2, document_bytes=300)[0].results.total
        for name, one in (("of_model", model), ("of_int8", int8))
    )
    assert small.model != full.model
    assert small.per_byte("model") == pytest.approx(full.per_byte("model"), rel=0.02)
    assert small.xz == full.xz


def results_of(**bits: float) -> EvalResults:
    total = Bits.model_validate({"documents": 2, "tokens": 10, "xz_per_document": 2.5 * bits["bytes"], **bits})
    return EvalResults(
        total=total, sources={"a": total}, languages={"": total}, ngram_order=6, ngram_train_bytes=0, completions=()
    )


def test_a_verdict_names_the_strongest_baseline_and_warns_of_little_text() -> None:
    ahead = verdict(results_of(bytes=100_000, model=150_000, ngram=300_000, xz=200_000))
    assert ahead == "1.500 bits per byte, 25.0% better than xz -9 (2.000), the strongest baseline"
    behind, caution = verdict(results_of(bytes=99_000, model=198_000, ngram=99_000, xz=150_000)).splitlines()
    assert "100.0% worse than an n-gram model of 6 bytes (1.000)" in behind
    assert caution.startswith("Only 99 kB of held-out text")


def test_runs_again_to_the_same_report(
    evaluated: tuple[EvalReport, RecordingContext], corpus: Corpus, uniform: Checkpoint, tmp_path: Path
) -> None:
    again, _ = evaluate(corpus, uniform, tmp_path)
    assert again.results == evaluated[0].results


def test_a_perplexity_beyond_all_bounds_is_infinite() -> None:
    assert Bits(tokens=2, model=4).perplexity == 4
    assert Bits(tokens=1, model=5000).perplexity == float("inf")


def test_completions_longer_than_the_context_are_refused(corpus: Corpus, uniform: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="completion_tokens is 64, but the model's context has only 64"):
        evaluate(corpus, uniform, tmp_path, completion_tokens=64)


def test_without_prompts_the_first_words_of_held_out_documents_are_completed(
    corpus: Corpus, uniform: Checkpoint, tmp_path: Path
) -> None:
    report, _ = evaluate(corpus, uniform, tmp_path, prompts=[])
    held_out = [first_words(document.text) for document in corpus.documents("validation")]
    prompts = [completion.prompt for completion in report.results.completions if completion.temperature == 0]
    assert len(prompts) == 3
    assert set(prompts) <= set(held_out)


def test_first_words_are_words() -> None:
    assert first_words("***** * \n\n  Call me Ishmael. Some years ago I was") == "Call me Ishmael. Some years ago"
    assert first_words("吾輩は猫である。" * 50) == ("吾輩は猫である。" * 50)[:80]
    assert first_words("* - *") == "* - *"


def test_empty_prompts_are_refused() -> None:
    with pytest.raises(ValidationError, match="empty prompt"):
        Evaluate(model="m", corpus="c", prompts=["a", ""])


def test_threads_and_gpus_are_demanded_and_do_not_change_the_fingerprint() -> None:
    def found(**fields: object) -> str:
        stage = Evaluate(model="m", corpus="c", **fields)
        step = Step("evaluate", "evaluate", stage, tuple(edges(stage)), EvalReport)
        return fingerprint(payload(step, {"m": "1", "c": "2"}, lambda path: ""))

    demanded = Evaluate(model="m", corpus="c", threads=3, gpus=1).demand().task
    assert (demanded.cpus, demanded.gpus) == (3, 1)
    assert found(threads=3, gpus=1) == found()
    assert found(seed=1) != found()


def test_the_memory_of_the_model_is_demanded_once_its_shape_is_known() -> None:
    configs = [small_config(hidden_size=width) for width in (48, 480)]
    weights = [sum(one.nbytes for one in small_model(config).parameters()) for config in configs]
    demanded = [
        Evaluate(model="m", corpus="c")
        .with_forecasts({"m": CheckpointForecast(config=config)})
        .demand()
        .task.memory_bytes
        for config in configs
    ]
    assert demanded[0] > weights[0]
    assert demanded[1] - demanded[0] >= weights[1] - weights[0] > 0
    assert Evaluate(model="m", corpus="c").demand().task.memory_bytes == 0


def test_a_model_whose_loss_is_not_finite_is_refused(corpus: Corpus, uniform: Checkpoint, tmp_path: Path) -> None:
    model = uniform.load()
    with torch.no_grad():
        model.get_parameter("ln_f.bias").fill_(3e38)
        model.word_embeddings.weight[5:].fill_(10)
    broken = Checkpoint.save(tmp_path / "model", model, uniform.config, uniform.tokenizer_path, {})
    with pytest.raises(StageError, match="loss of held-out text is not finite"):
        evaluate(corpus, broken, tmp_path / "evaluated")


def test_bits_by_language_are_those_of_its_documents(uniform: Checkpoint, tmp_path: Path) -> None:
    languages = [*["en"] * 60, *["sw"] * 20, *[""] * 20]
    records = [{"text": prose(number), "language": language} for number, language in enumerate(languages)]
    sources = {
        name: source(write_lines(tmp_path / f"{name}.jsonl", records[part::2]))
        for part, name in enumerate(("news", "books"))
    }
    split = {"validation_fraction": 0.05, "validation_documents_per_language": 4}
    corpus, _ = ingest(tmp_path / "corpus", sources=sources, **split)
    every, context = evaluate(corpus, uniform, tmp_path / "every")
    texts: dict[str, list[bytes]] = {}
    for document in sorted(corpus.documents("validation"), key=lambda document: (document.source, document.id)):
        texts.setdefault(document.language, []).append(document.text.encode())
    found = every.results.languages
    assert {language: (bits.documents, bits.bytes) for language, bits in found.items()} == {
        language: (len(data), sum(map(len, data))) for language, data in texts.items()
    }
    for language, data in texts.items():
        assert found[language].xz == 8 * len(lzma.compress(b"".join(data), preset=9 | lzma.PRESET_EXTREME))
        assert found[language].model == pytest.approx(found[language].tokens * math.log2(VOCABULARY), rel=1e-5)
        name = f"bits_per_byte/language/{language or 'none'}"
        assert context.last[name] == found[language].per_byte("model")
    assert sum(bits.model for bits in found.values()) == pytest.approx(every.results.total.model)
    assert "bits_per_byte_by_language" in context.figures
    few, _ = evaluate(corpus, uniform, tmp_path / "few", documents_per_source=1, documents_per_language=3)
    assert [bits.documents >= 3 for bits in few.results.languages.values()] == [True] * 3
    assert few.results.total.documents < every.results.total.documents


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"total": NaN}'])
def test_garbage_is_one_clear_error(tmp_path: Path, content: str) -> None:
    (tmp_path / REPORT).write_text(content)
    with pytest.raises(ArtifactError, match=r"report\.json is not an evaluation's report"):
        EvalReport(tmp_path).check()


@pytest.mark.parametrize("cut", ["source", "language"])
def test_totals_that_do_not_add_up_are_refused(
    evaluated: tuple[EvalReport, RecordingContext], tmp_path: Path, cut: str
) -> None:
    content = json.loads((evaluated[0].path / REPORT).read_text())
    next(iter(content[f"{cut}s"].values()))["bytes"] += 1
    (tmp_path / REPORT).write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=f"bytes by {cut} do not add up"):
        EvalReport(tmp_path).check()
