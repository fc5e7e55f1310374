"""The data card of a corpus, made from its manifest and tables: Markdown, and one page of HTML that needs nothing else.

It says what the corpus holds by source, language and licence (as table 1 of arXiv 2211.05100 does for ROOTS), what
became of every byte that was read, with samples of what was dropped, and which documents are like others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from stages.artifacts.corpus import Corpus, warnings
from stages.artifacts.manifest import SPLITS, Flow, Manifest, Tally
from stages.corpus.languages import LANGUAGES

FAMILIES_SHOWN = 100
SAMPLE_SHOWN = 600  # characters of a text


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading; all columns but the first hold numbers, or all hold words."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: bool = False


@dataclass(frozen=True)
class Sample:
    """A text with what is known of it."""

    label: str
    text: str


@dataclass(frozen=True)
class Card:
    """All that the card says, before it is written in one way or the other."""

    manifest: Manifest
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]
    samples: Mapping[str, tuple[Sample, ...]]  # "operation.rule" -> dropped documents
    families: tuple[tuple[Sample, ...], ...]  # that which stayed first
    more_families: int  # that are not shown


def card_of(corpus: Corpus) -> Card:
    """Gather what the card says. Raises ArtifactError."""
    manifest = corpus.manifest
    families = list(_families(corpus))
    return Card(
        manifest=manifest,
        warnings=tuple(warnings(manifest)),
        tables=tuple(_tables(manifest)),
        samples=_samples(corpus),
        families=tuple(families[:FAMILIES_SHOWN]),
        more_families=max(len(families) - FAMILIES_SHOWN, 0),
    )


def markdown(card: Card) -> str:
    """The card without its texts."""
    total = card.manifest.total
    parts = ["# Data card", summary(total)]
    parts += [f"**Warning:** {_cell(warning)}" for warning in card.warnings]
    for table in card.tables:
        aligned = "---" if table.words else "---:"
        rows = [table.columns, ("---", *[aligned] * (len(table.columns) - 1)), *table.rows]
        lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
        parts.append(f"## {table.title}\n\n" + "\n".join(lines))
    if card.families:
        parts.append(f"{len(card.families) + card.more_families} families of documents that are alike: see card.html.")
    return "\n\n".join(parts) + "\n"


def summary(total: Flow) -> str:
    share = total.kept.bytes / total.read.bytes if total.read.bytes else 0.0
    return (
        f"{total.kept.documents:,} documents with {size(total.kept.bytes)} of text were kept of "
        f"{total.read.documents:,} with {size(total.read.bytes)} that were read ({share:.1%} of the bytes)."
    )


def size(count: int) -> str:
    """Bytes for people: "3.20 MB"."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.2f} {unit}"


def language_name(code: str) -> str:
    return f"{LANGUAGES[code].name} ({code})" if code in LANGUAGES else code or "(none)"


def _tables(manifest: Manifest) -> Iterator[Table]:
    columns = ("documents read", "documents kept", "bytes read", "bytes kept", "share of what is kept")
    total = manifest.total.kept.bytes
    for title, cut in (("Sources", "source"), ("Languages", "language"), ("Licences", "license")):
        flows = sorted(manifest.by(cut).items(), key=lambda item: (-item[1].kept.bytes, item[0]))  # type: ignore[arg-type]
        name = language_name if cut == "language" else (lambda value: value or "(none)")
        rows = [(name(value), *_flow_row(flow, total)) for value, flow in flows]
        yield Table(title, (cut if cut != "license" else "licence", *columns), tuple(rows))
    yield Table("Splits", ("split", "documents", "bytes"), tuple(_tallies({s: manifest.size(s) for s in SPLITS})))
    yield Table("Dropped", ("operation and rule", "documents", "bytes"), tuple(_tallies(manifest.total.dropped)))
    if trimmed := manifest.total.trimmed:
        rows = tuple((name, f"{count:,}") for name, count in trimmed.items())
        yield Table("Taken out of texts", ("operation", "bytes"), rows)
    if manifest.contamination:
        rows = tuple(
            (task, f"{found.documents:,}", f"{found.texts:,}", f"{found.too_short:,}")
            for task, found in manifest.contamination.items()
        )
        columns = ("task", "documents that hold a passage", "texts of the task", "of these too short to look for")
        yield Table("Evaluation sets", columns, rows)
    lengths = {f"{2 ** (bits - 1):,} to {2**bits - 1:,}": tally for bits, tally in manifest.lengths.items() if bits}
    yield Table("Lengths", ("bytes of a document", "documents", "bytes"), tuple(_tallies(lengths)))
    rows = tuple((name, ", ".join(str(op["operation"]) for op in facts.operations) or "(none)")
                 for name, facts in manifest.sources.items())  # fmt: skip
    yield Table("Operations", ("source", "in this order"), rows, words=True)
    yield _coverage(manifest)


def _coverage(manifest: Manifest) -> Table:
    """The 59 languages of ROOTS by family: which have data here."""
    held = {code for code, flow in manifest.by("language").items() if flow.kept.documents}
    families: dict[str, list[str]] = {}
    for language in LANGUAGES.values():
        families.setdefault(language.family, []).append(language.code)
    rows = []
    for family, codes in families.items():
        present, absent = [code for code in codes if code in held], [code for code in codes if code not in held]
        names = (", ".join(map(language_name, group)) or "(none)" for group in (present, absent))
        rows.append((f"{family}: {len(present)} of {len(codes)}", *names))
    title = f"Languages of ROOTS: {len(held & LANGUAGES.keys())} of {len(LANGUAGES)}"
    return Table(title, ("family", "with documents", "without"), tuple(rows), words=True)


def _flow_row(flow: Flow, total: int) -> tuple[str, ...]:
    counts = (flow.read.documents, flow.kept.documents, flow.read.bytes, flow.kept.bytes)
    return (*(f"{count:,}" for count in counts), f"{flow.kept.bytes / max(total, 1):.2%}")


def _tallies(tallies: Mapping[str, Tally]) -> Iterator[tuple[str, ...]]:
    return ((name, f"{tally.documents:,}", f"{tally.bytes:,}") for name, tally in tallies.items())


def _samples(corpus: Corpus) -> dict[str, tuple[Sample, ...]]:
    found: dict[str, list[Sample]] = {}
    for row in corpus.samples().to_pylist():
        bounds = f": {row['value']}" + (f" (limit {row['threshold']})" if row["threshold"] else "")
        label = f"{row['source']}: {row['path'] or row['id']}{bounds if row['value'] else ''}"
        found.setdefault(f"{row['operation']}.{row['rule']}", []).append(Sample(label, row["text"][:SAMPLE_SHOWN]))
    return {reason: tuple(samples) for reason, samples in sorted(found.items())}


def _families(corpus: Corpus) -> Iterator[tuple[Sample, ...]]:
    rows: Sequence[Mapping[str, object]] = corpus.families().to_pylist()
    for _, members in groupby(rows, key=lambda row: (row["rule"], row["family"])):
        yield tuple(_member(row) for row in members)


def _member(row: Mapping[str, object]) -> Sample:
    fate = "stayed" if row["kept"] else "dropped"
    label = f"{row['source']}: {row['path'] or row['id']} ({row['rule']}, {row['similarity']:.0%} alike, {fate})"
    return Sample(label, str(row["text"])[:SAMPLE_SHOWN])


def _cell(text: str) -> str:
    """Text as it may stand in a cell of a table: what a corpus names its sources and licences is not trusted."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(escaped.split())
