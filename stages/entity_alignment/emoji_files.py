"""The files of the package `emoji` that hold the names of emoji."""

from __future__ import annotations

from pathlib import Path

from stages.base import StageError


def data_files(languages: tuple[str, str]) -> list[Path]:
    """The files of the package that a pair is made of. Raises StageError if it lacks a language."""
    import emoji

    folder = Path(emoji.__file__).parent / "unicode_codes"
    found = [folder / "emoji.json"]
    for language in languages:
        path = folder / f"emoji_{language}.json"
        if language != "en" and not path.is_file():
            known = sorted({"en", *(one.stem.removeprefix("emoji_") for one in folder.glob("emoji_*.json"))})
            raise StageError(f"languages: {language!r} is not one of the package emoji: {', '.join(known)}")
        if language != "en":
            found.append(path)
    return found
