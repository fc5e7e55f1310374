"""Refuses a corpus with an empty split as soon as that is certain, and says what took the documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stages.artifacts.corpus import named_reasons
from stages.artifacts.manifest import SPLITS, Split, Tally
from stages.base import StageError

FEW = 5  # documents: of fewer, none is held out by `validation_share_per_language` as it is by default
CheckSplits = Callable[[Mapping[Split, int], Mapping[str, Tally]], None]  # the first two arguments of `check_splits`


def check_splits(
    documents: Mapping[Split, int], dropped: Mapping[str, Tally], validation_fraction: float, wants_validation: bool
) -> None:
    """Raises StageError if a split is empty, since nothing could be trained or measured.

    documents: the most that each split may have. dropped: what is known to be dropped, by reason.
    """
    kept, lost = sum(documents.values()), sum(tally.documents for tally in dropped.values())
    for split in SPLITS if wants_validation else ("train",):
        if documents.get(split):
            continue
        why = f" (dropped: {named_reasons(dropped)})" if dropped else ""
        if not kept:
            left = "its only document was dropped" if lost == 1 else f"none of the {lost} documents is left"
            raise StageError(f"split {split} is empty: {left}{why}: add documents, or change the rules that drop them")
        if split == "validation" and kept < FEW:
            raise StageError(
                f"there is too little text to hold some out: {kept} document{'s' if kept > 1 else ''} of {FEW} at least"
                f"{why}: add text, divide it into smaller documents (reader.document_bytes of a source of kind "
                "documents), or set validation_fraction: 0 for a corpus without validation documents"
            )
        raise StageError(
            f"split {split} is empty: the hash of its text puts each document that is left ({kept} of them) into the "
            f"other split at validation_fraction {validation_fraction:g}{why}: add documents, change "
            "validation_fraction, set validation_documents_per_language, or set validation_fraction: 0 for a corpus "
            "without validation documents"
        )
