"""The model card of an exported model, for readers and (its metadata) for the Hub: architecture, data, training and
evaluation.

Every number comes from the run that produced the model. Values that are not known are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.artifacts.evaluation_report import Bits, EvalResults
from stages.artifacts.manifest import Manifest
from stages.model.config import DecoderConfig
from stages.model.parameters import parameter_count

TITLES = {
    "steps": "optimizer steps",
    "tokens_seen": "training tokens",
    "training_loss": "final training loss (nats per token)",
    "validation_loss": "final validation loss (nats per token)",
    "validation_loss_before": "validation loss before training (nats per token)",
    "batches_skipped": "batches skipped",
    "imported_from": "imported from",
    "source_tensors": "tensors in the source",
    "stored_as": "weights stored as",
}
TABLE_ROWS = 40  # of a table of sources or licences


@dataclass(frozen=True)
class Card:
    """Everything that a model card is written from."""

    name: str
    license: str
    license_link: str | None
    languages: tuple[str, ...]
    tags: tuple[str, ...]
    datasets: tuple[str, ...]
    summary: str
    family: str
    config: DecoderConfig
    facts: Mapping[str, Any]  # those of the checkpoint
    corpus: Manifest | None
    evaluation: EvalResults | None


def card_text(card: Card) -> str:
    """The text of README.md: metadata in YAML, then Markdown."""
    import yaml

    metadata = yaml.safe_dump(_metadata(card), sort_keys=False, allow_unicode=True, width=1000)
    sections = [
        f"# {card.name}",
        card.summary.strip(),
        _model(card),
        _use(),
        _data(card.corpus) if card.corpus else "",
        _training(card.facts),
        _evaluation(card.evaluation) if card.evaluation else "",
    ]
    return f"---\n{metadata}---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _metadata(card: Card) -> dict[str, Any]:
    """The metadata of the card, with the keys that the Hub reads."""
    values: dict[str, Any] = {
        "language": list(card.languages),
        "license": card.license,
        "license_link": card.license_link,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["bloomline", card.family, *card.tags],
        "datasets": list(card.datasets),
    }
    if card.evaluation:
        values["model-index"] = [{"name": card.name, "results": _results(card.evaluation)}]
    return {key: value for key, value in values.items() if value}


def _results(evaluation: EvalResults) -> list[dict[str, Any]]:
    def result(source: str, bits: Bits) -> dict[str, Any]:
        metrics = [
            {"type": "bits_per_byte", "name": "bits per byte", "value": round(bits.per_byte("model"), 4)},
            {"type": "perplexity", "name": "perplexity per token", "value": round(bits.perplexity, 4)},
        ]
        dataset = {"type": "held-out", "name": f"held-out documents: {source}", "split": "validation"}
        return {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}

    return [result("all", evaluation.total)] + [
        result(source, bits) for source, bits in evaluation.sources.items() if bits.bytes and bits.tokens
    ]


def _model(card: Card) -> str:
    config = card.config
    heads = f"{config.heads} (keys and values: {config.grouped_heads})"
    rows = [
        ("family", card.family),
        ("parameters", f"{parameter_count(config):,}"),
        ("layers", config.layers),
        ("hidden size", config.hidden_size),
        ("attention heads", heads if config.grouped_heads != config.heads else config.heads),
        ("context length", f"{config.context_length:,} tokens"),
        ("vocabulary size", f"{config.vocab_size:,}"),
    ]
    return "## Model\n\n" + _table(("", ""), rows)


def _use() -> str:
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained(".")  # this directory\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")\n```\n\n'
        "The tokenizer encodes special tokens that are written out in a text, such as `</s>`, as ordinary letters. "
        "Pass `split_special_tokens=False` to encode them as special tokens."
    )


def _data(manifest: Manifest) -> str:
    total = manifest.total
    rows = [
        (source, f"{flow.kept.documents:,}", f"{flow.kept.bytes:,}", f"{flow.read.bytes:,}")
        for source, flow in manifest.by("source").items()
    ]
    rows.append(("**total**", f"{total.kept.documents:,}", f"{total.kept.bytes:,}", f"{total.read.bytes:,}"))
    licenses = [
        (name, f"{flow.kept.documents:,}", f"{flow.kept.bytes:,}")
        for name, flow in sorted(manifest.by("license").items(), key=lambda item: -item[1].kept.bytes)
        if flow.kept.documents
    ]
    return (
        "## Training data\n\n"
        + _table(("source", "documents kept", "bytes kept", "bytes read"), rows)
        + "\n\n"
        + _table(("licence", "documents", "bytes"), licenses)
    )


def _training(facts: Mapping[str, Any]) -> str:
    rows = [
        (TITLES.get(name.rpartition(".")[2], name), _number(value) if isinstance(value, int | float) else value)
        for name, value in _flat(facts)
    ]
    return "## Training\n\n" + _table(("", ""), rows) if rows else ""


def _evaluation(evaluation: EvalResults) -> str:
    def row(source: str, bits: Bits) -> tuple[str, ...]:
        per_byte = [f"{bits.per_byte(coder):.3f}" for coder in ("model", "ngram", "xz", "xz_per_document")]
        return source, f"{bits.documents:,}", f"{bits.bytes:,}", *per_byte, f"{bits.perplexity:.2f}"

    found = [row(source, bits) for source, bits in evaluation.sources.items() if bits.bytes and bits.tokens]
    columns = (
        "source",
        "documents",
        "bytes",
        "model",
        f"{evaluation.ngram_order}-gram",
        "xz -9",
        "xz -9 each",
        "perplexity",
    )
    return (
        "## Evaluation\n\nThe table gives the bits per byte of held-out documents under the model and baselines, and "
        "the perplexity of the model per token. `xz -9` compresses all documents in one file; `xz -9 each` compresses "
        "each document separately, as the model sees them.\n\n"
        + _table(columns, [*found, row("**total**", evaluation.total)])
    )


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float):
            yield f"{prefix}{name}", value


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    cells = list(rows)
    shown = cells if len(cells) <= TABLE_ROWS else [*cells[: TABLE_ROWS - 1], (f"{len(cells) - TABLE_ROWS + 1} more",)]
    lines = [columns, tuple("---" for _ in columns), *(row + ("",) * (len(columns) - len(row)) for row in shown)]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    """The text of a cell: on one line, with `|` escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")
