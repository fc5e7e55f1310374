"""The contents of a corpus's data card, gathered from its manifest and tables.

The card shows what the corpus contains by source, language and licence (as table 1 of arXiv 2211.05100 does for ROOTS),
what happened to every byte that was read, samples of dropped documents, and families of similar documents.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby

from stages.artifacts.corpus import KEPT, Corpus, warnings
from stages.artifacts.manifest import SPLITS, Cut, Flow, Manifest, Tally
from stages.corpus.card.formatting import language_name, size
from stages.corpus.languages import LANGUAGES, NATURAL
from stages.corpus.readers.file_systems import BAD_FILE

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
BAD_FILE_REASON = f"read.{BAD_FILE}"
SAMPLE_SHOWN = 600  # characters of a text

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading. The columns after the first hold numbers, or words if `words` is set."""

    title: str
    columns: Row
    rows: tuple[Row, ...]
    words: bool = False


@dataclass(frozen=True)
class Sample:
    """A text with its label."""

    label: str
    text: str


@dataclass(frozen=True)
class Family:
    """Similar documents: the member that is kept comes first."""

    members: tuple[Sample, ...]  # some of them
    size: int


@dataclass(frozen=True)
class Card:
    """All contents of the card, independent of the format in which it is written."""

    manifest: Manifest
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]
    samples: Mapping[str, tuple[Sample, ...]]  # "operation.rule" -> dropped documents
    kept: Mapping[str, tuple[Sample, ...]]  # source -> documents that were kept
    families: tuple[Family, ...]  # some of them
    family_count: int


def card_of(corpus: Corpus) -> Card:
    """Gather the contents of the card. Raises ArtifactError if the corpus is damaged."""
    manifest = corpus.manifest
    families, family_count = _families(corpus)
    samples, kept = _samples(corpus)
    return Card(
        manifest=manifest,
        warnings=tuple(warnings(manifest)),
        tables=(*_tables(manifest), *_values(corpus)),
        samples=samples,
        kept=kept,
        families=families,
        family_count=family_count,
    )


def summary(manifest: Manifest) -> str:
    """One sentence on what was read and kept."""
    total, markup = manifest.total, manifest.markup_bytes()
    text = total.read.bytes - markup
    share = total.kept.bytes / text if text else 0.0
    read = f"{size(total.read.bytes)}, of which {size(markup)} are markup," if markup else f"{size(text)} of text"
    bad = total.dropped[BAD_FILE_REASON].documents if BAD_FILE_REASON in total.dropped else 0
    lost = f" {bad:,} {'file' if bad == 1 else 'files'} could not be read: the ledger names them." if bad else ""
    return (
        f"{total.read.documents - bad:,} documents with {read} were read; "
        f"{total.kept.documents:,} documents with {size(total.kept.bytes)} were kept ({share:.1%} of the text).{lost}"
    )


def _tables(manifest: Manifest) -> Iterator[Table]:
    yield _flow_table("Sources", manifest, "source", "source", _or_none)
    yield _flow_table("Languages", manifest, "language", "language", language_name)
    yield _flow_table("Licences", manifest, "license", "licence", _or_none)
    sizes: dict[str, Tally] = {split: manifest.size(split) for split in SPLITS}
    yield Table("Splits", ("split", "documents", "bytes"), tuple(_tallies(sizes)))
    yield Table(
        "Dropped documents", ("operation and rule", "documents", "bytes"), tuple(_tallies(manifest.total.dropped))
    )
    if trimmed := manifest.total.trimmed:
        removed = tuple((name, f"{count:,}") for name, count in trimmed.items())
        yield Table("Removed from texts", ("operation", "bytes"), removed)
    if counts := manifest.counts:
        yield Table("Counted", ("what", "count"), tuple((name, f"{count:,}") for name, count in counts.items()))
    if unchecked := manifest.unchecked_languages():
        rows = tuple((language_name(language), f"{count:,}") for language, count in unchecked.items())
        yield Table("Declared languages that were not checked", ("language", "documents"), rows)
    if manifest.contamination:
        yield _evaluation_sets(manifest)
    lengths = {f"{2 ** (bits - 1):,} to {2**bits - 1:,}": tally for bits, tally in manifest.lengths.items() if bits}
    yield Table("Document lengths", ("bytes of text", "documents", "bytes"), tuple(_tallies(lengths)))
    operations = tuple(
        (name, ", ".join(str(operation["operation"]) for operation in facts.operations) or "(none)")
        for name, facts in manifest.sources.items()
    )
    yield Table("Operations", ("source", "operations in order"), operations, words=True)
    natural = {language.code for language in NATURAL}
    if any(flow.kept.documents for code, flow in manifest.by("language").items() if code in natural):
        yield _languages_of_roots(manifest)


def _values(corpus: Corpus) -> Iterator[Table]:
    """For each number that an operation compares with a threshold, its quantiles over the documents of a source."""
    found: dict[tuple[str, str, str, float], list[tuple[float, bool, int]]] = {}
    for row in corpus.values().to_pylist():
        key = (row["source"], row["operation"], row["rule"], row["threshold"])
        found.setdefault(key, []).append((row["value"], row["fails"], row["documents"]))
    rows = []
    for (source, operation, rule, threshold), values in found.items():
        values.sort()
        ends = list(accumulate(documents for _, _, documents in values))
        quantiles = (values[bisect_left(ends, share * ends[-1])][0] for share in QUANTILES)
        failing = sum(documents for _, fails, documents in values if fails)
        numbers = (f"{ends[-1]:,}", *(f"{value:g}" for value in quantiles), f"{threshold:g}", f"{failing:,}")
        rows.append((f"{source}: {operation}.{rule}", *numbers))
    if rows:
        columns = ("documents measured", *(f"{share:.0%}" for share in QUANTILES), "threshold", "documents dropped")
        yield Table("Values and thresholds", ("source, operation and rule", *columns), tuple(rows))


def _flow_table(title: str, manifest: Manifest, cut: Cut, heading: str, name_of: Callable[[str], str]) -> Table:
    total = manifest.total.kept.bytes
    flows = sorted(manifest.by(cut).items(), key=lambda item: (-item[1].kept.bytes, item[0]))
    rows = tuple((name_of(name), *_flow_cells(flow, total)) for name, flow in flows)
    columns = ("documents read", "documents kept", "bytes read", "bytes kept", "share of bytes kept")
    return Table(title, (heading, *columns), rows)


def _evaluation_sets(manifest: Manifest) -> Table:
    columns = ("task", "documents with a passage", "texts of the task", "texts too short to search for")
    rows = tuple(
        (task, f"{found.documents:,}", f"{found.texts:,}", f"{found.too_short:,}")
        for task, found in manifest.contamination.items()
    )
    return Table("Evaluation sets", columns, rows)


def _languages_of_roots(manifest: Manifest) -> Table:
    """The 59 languages of ROOTS by family, and which of them have documents in this corpus."""
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
    return Table(title, ("family", "with documents", "without documents"), tuple(rows), words=True)


def _or_none(name: str) -> str:
    return name or "(none)"


def _flow_cells(flow: Flow, total: int) -> Row:
    counts = (flow.read.documents, flow.kept.documents, flow.read.bytes, flow.kept.bytes)
    return (*(f"{count:,}" for count in counts), f"{flow.kept.bytes / max(total, 1):.2%}")


def _tallies(tallies: Mapping[str, Tally]) -> Iterator[Row]:
    return ((name, f"{tally.documents:,}", f"{tally.bytes:,}") for name, tally in tallies.items())


def _samples(corpus: Corpus) -> tuple[dict[str, tuple[Sample, ...]], dict[str, tuple[Sample, ...]]]:
    """The samples of dropped documents by reason, and those of documents that were kept by source."""
    found: dict[str, list[Sample]] = {}
    kept: dict[str, list[Sample]] = {}
    for row in corpus.samples().to_pylist():
        if row["rule"] == KEPT and not row["operation"]:
            sample = Sample(row["path"] or row["id"], row["text"][:SAMPLE_SHOWN])
            kept.setdefault(row["source"], []).append(sample)
            continue
        bounds = f": {row['value']}" + (f" (limit {row['threshold']})" if row["threshold"] else "")
        label = f"{row['source']}: {row['path'] or row['id']}{bounds if row['value'] else ''}"
        found.setdefault(f"{row['operation']}.{row['rule']}", []).append(Sample(label, row["text"][:SAMPLE_SHOWN]))
    dropped, stayed = ({name: tuple(samples) for name, samples in sorted(group.items())} for group in (found, kept))
    return dropped, stayed


def _families(corpus: Corpus) -> tuple[tuple[Family, ...], int]:
    """The families with texts, and the number of all families."""
    found, count = [], 0
    for _, members in groupby(corpus.families(), key=lambda row: (row["rule"], row["family"])):
        shown, size = [], 0
        for row in members:
            size += 1
            if row["text"]:
                shown.append(_member(row))
        count += 1
        if shown:
            found.append(Family(tuple(shown), size))
    return tuple(found), count


def _member(row: Mapping[str, object]) -> Sample:
    outcome = "kept" if row["kept"] else "dropped"
    label = (
        f"{row['source']}: {row['path'] or row['id']} ({row['rule']}, similarity {row['similarity']:.0%}, {outcome})"
    )
    return Sample(label, str(row["text"])[:SAMPLE_SHOWN])
