"""The 59 languages of ROOTS by code, name and family: 46 natural, 13 for programming (arXiv 2211.05100, table 1).

Other languages that can be detected have a code and a name.

Codes are ROOTS' own: ISO 639-1 where there is one, else 639-3, and `zhs`, `zht` for Chinese by its script.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["natural", "programming"]


@dataclass(frozen=True)
class Language:
    """One language of the corpus."""

    code: str
    name: str
    family: str
    genus: str = ""  # the branch of the family, where ROOTS names it
    kind: Kind = "natural"

    @property
    def has_quality_parameters(self) -> bool:
        """Whether ROOTS has filtering parameters for this language; the others use the default."""
        return quality_code(self.code) in TUNED


# The languages for which ROOTS tuned its filters, by the code of its parameter table.
TUNED = ("ar", "bn", "ca", "en", "es", "eu", "fr", "hi", "id", "pt", "ur", "vi", "zh")


def _natural(family: str, genus: str, **names: str) -> tuple[Language, ...]:
    return tuple(Language(code, name.replace("_", " "), family, genus) for code, name in names.items())


NATURAL: tuple[Language, ...] = (
    *_natural("Niger-Congo", "Atlantic", wo="Wolof"),
    *_natural("Niger-Congo", "Kwa", ak="Akan", fon="Fon", tw="Twi"),
    *_natural("Niger-Congo", "Mande", bm="Bambara"),
    *_natural("Niger-Congo", "Volta-Niger", ig="Igbo", yo="Yoruba"),
    *_natural("Niger-Congo", "Bantu", ki="Kikuyu", lg="Luganda", ln="Lingala", nso="Northern_Sotho", ny="Chichewa"),
    *_natural("Niger-Congo", "Bantu", rn="Kirundi", rw="Kinyarwanda", sn="chiShona", st="Sesotho", sw="Swahili"),
    *_natural("Niger-Congo", "Bantu", tn="Setswana", ts="Xitsonga", tum="Chitumbuka", xh="isiXhosa", zu="isiZulu"),
    *_natural("Indo-European", "Indic", bn="Bengali", gu="Gujarati", hi="Hindi", mr="Marathi", ne="Nepali"),
    *_natural("Indo-European", "Indic", pa="Punjabi", ur="Urdu", **{"as": "Assamese", "or": "Odia"}),
    *_natural("Indo-European", "Romance", ca="Catalan", es="Spanish", fr="French", pt="Portuguese"),
    *_natural("Indo-European", "Germanic", en="English"),
    *_natural("Dravidian", "Southern", kn="Kannada", ml="Malayalam", ta="Tamil"),
    *_natural("Dravidian", "South-Central", te="Telugu"),
    *_natural("Sino-Tibetan", "Chinese", zhs="Simplified_Chinese", zht="Traditional_Chinese"),
    *_natural("Afro-Asiatic", "Semitic", ar="Arabic"),
    *_natural("Austro-Asiatic", "Vietic", vi="Vietnamese"),
    *_natural("Austronesian", "Malayo-Sumbawan", id="Indonesian"),
    *_natural("Basque", "Basque", eu="Basque"),
)

PROGRAMMING: tuple[Language, ...] = tuple(
    Language(code, name, "Programming languages", kind="programming")
    for code, name in {
        "c": "C",
        "c++": "C++",
        "c#": "C#",
        "go": "Go",
        "java": "Java",
        "javascript": "JavaScript",
        "lua": "Lua",
        "php": "PHP",
        "python": "Python",
        "ruby": "Ruby",
        "rust": "Rust",
        "scala": "Scala",
        "typescript": "TypeScript",
    }.items()
)

LANGUAGES: dict[str, Language] = {language.code: language for language in (*NATURAL, *PROGRAMMING)}

# Natural languages outside of ROOTS that a detector of `statistics/language_detection.py` finds: the code (ISO 639-1
# where there is one, else 639-3), other codes of the language and of its variants, and the name.
_OTHERS = """
    aa aar: Afar; ab abk: Abkhazian; af afr: Afrikaans; am amh: Amharic; ay aym ayr: Aymara;
    az aze azj: Azerbaijani; be bel: Belarusian; bg bul: Bulgarian; bi bis: Bislama; bo bod tib: Tibetan;
    br bre: Breton; bs bos: Bosnian; ceb: Cebuano; chr: Cherokee; co cos: Corsican; crs: Seychellois Creole;
    cs ces cze: Czech; cy cym wel: Welsh; da dan: Danish; de deu ger: German; dv div: Dhivehi; dz dzo: Dzongkha;
    el ell gre: Greek; eo epo: Esperanto; et est ekk: Estonian; fa fas per pes: Persian; fi fin: Finnish;
    fj fij: Fijian; fo fao: Faroese; fy fry: Frisian; ga gle: Irish; gd gla: Scottish Gaelic; gl glg: Galician;
    gn grn gug: Guarani; gv glv: Manx; ha hau: Hausa; haw: Hawaiian; he heb iw: Hebrew; hr hrv: Croatian;
    ht hat: Haitian Creole; hu hun: Hungarian; hy hye arm: Armenian; ia ina: Interlingua; ilo: Iloko;
    is isl ice: Icelandic; it ita: Italian; iu iku ike: Inuktitut; ja jpn: Japanese; jv jav jw: Javanese;
    ka kat geo: Georgian; kha: Khasi; kk kaz: Kazakh; kl kal: Greenlandic; km khm: Khmer; ko kor: Korean;
    ku kur kmr ckb: Kurdish; ky kir: Kyrgyz; la lat: Latin; lb ltz: Luxembourgish; lo lao: Lao; lt lit: Lithuanian;
    lv lav lvs: Latvian; mg mlg plt: Malagasy; mi mri mao: Māori; mk mkd mac: Macedonian; mn mon khk: Mongolian;
    ms msa may zsm: Malay; mt mlt: Maltese; my mya bur: Burmese; nds: Low German; nl nld dut: Dutch;
    nn nno: Norwegian Nynorsk; no nor nb nob: Norwegian; om orm gaz: Oromo; pl pol: Polish; pnb: Western Panjabi;
    ps pus pbu: Pashto; qu que quz: Quechua; rm roh: Romansh; ro ron rum mo: Romanian; ru rus: Russian;
    sa san: Sanskrit; sah: Yakut; sd snd: Sindhi; sg sag: Sango; si sin: Sinhala; sk slk slo: Slovak;
    sl slv: Slovenian; sm smo: Samoan; so som: Somali; sq sqi alb als: Albanian; sr srp cnr: Serbian;
    ss ssw: Swati; su sun: Sundanese; sv swe: Swedish; tg tgk: Tajik; th tha: Thai; ti tir: Tigrinya;
    tk tuk: Turkmen; tl fil: Tagalog; to ton: Tongan; tr tur: Turkish; tt tat: Tatar; ug uig: Uyghur;
    uk ukr: Ukrainian; uz uzb uzn: Uzbek; ve ven: Venda; war: Waray; yi yid ji ydd: Yiddish
"""
_ENTRIES = [(codes.split(), name.strip()) for codes, name in (entry.split(":") for entry in _OTHERS.split(";"))]
OTHERS: dict[str, str] = {codes[0]: name for codes, name in _ENTRIES}

# Other names of the same languages in common tags (BCP 47, ISO 639-2 and -3, gettext), in lower case with "-".
ALIASES: dict[str, str] = {
    "zh": "zhs", "zh-hans": "zhs", "zh-cn": "zhs", "zh-sg": "zhs", "cmn": "zhs", "cmn-hans": "zhs",
    "zh-hant": "zht", "zh-tw": "zht", "zh-hk": "zht", "zh-mo": "zht", "cmn-hant": "zht",
    "ara": "ar", "arb": "ar", "asm": "as", "bam": "bm", "ben": "bn", "cat": "ca", "eng": "en", "spa": "es",
    "eus": "eu", "fra": "fr", "guj": "gu", "hin": "hi", "ibo": "ig", "ind": "id", "kan": "kn", "kik": "ki",
    "kin": "rw", "lin": "ln", "lug": "lg", "mal": "ml", "mar": "mr", "nep": "ne", "npi": "ne", "nya": "ny",
    "ori": "or", "ory": "or", "pan": "pa", "por": "pt", "run": "rn", "sna": "sn", "sot": "st", "swa": "sw",
    "swh": "sw", "tam": "ta", "tel": "te", "tsn": "tn", "tso": "ts", "twi": "tw", "aka": "ak", "urd": "ur",
    "vie": "vi", "wol": "wo", "xho": "xh", "yor": "yo", "zul": "zu",
    "cpp": "c++", "csharp": "c#", "golang": "go", "js": "javascript", "ts-lang": "typescript",
}  # fmt: skip
ALIASES |= {alias: codes[0] for codes, _ in _ENTRIES for alias in codes[1:]}


@lru_cache(maxsize=4096)
def canonical_code(tag: str) -> str:
    """The code of a language tag ("pt_BR" -> "pt", "zh-Hant-TW" -> "zht"); an unknown tag in lower case."""
    whole = tag.strip().lower().replace("_", "-")
    parts = whole.split("-")
    for length in range(len(parts), 0, -1):
        prefix = "-".join(parts[:length])
        if prefix in ALIASES:
            return ALIASES[prefix]
        if prefix in LANGUAGES or prefix in OTHERS:
            return prefix
    return whole


def quality_code(code: str) -> str:
    """The code of a language in ROOTS' parameters, stop words and n-gram models, which have one Chinese."""
    return "zh" if code in ("zhs", "zht") else code
