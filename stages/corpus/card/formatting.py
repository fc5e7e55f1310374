"""How the data card writes sizes, languages and long names."""

from __future__ import annotations

from stages.corpus.languages import LANGUAGES, OTHERS

CHARACTER_WIDTH = 7  # pixels, about


def size(count: int) -> str:
    """A number of bytes with a unit: "3.20 MB"."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.2f} {unit}"


def language_name(code: str) -> str:
    """The name of a language with its code; the code itself if it has no name here."""
    name = LANGUAGES[code].name if code in LANGUAGES else OTHERS.get(code, "")
    return f"{name} ({code})" if name else code or "(none)"


def shortened(text: str, width: float) -> str:
    """A text cut to about `width` pixels."""
    characters = max(int(width / CHARACTER_WIDTH) - 1, 1)
    return text if len(text) <= characters else text[: characters - 1] + "…"
