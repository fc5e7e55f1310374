"""Reads the texts of a Python environment: sources, headers and documentation of the installed distributions.

The RECORD of a distribution lists its files with their SHA-256 (packaging.python.org, "Recording installed projects").
The digest of this reader is computed from these, and `read` checks every file. The standard library has no RECORD, so
its files are digested one by one.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from fnmatch import fnmatchcase, translate
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.reader import Candidate, Part, Reader, digest_of, too_long

PYTHON = "python"  # in `packages`: the standard library
OWN_NAME = "bloomline"
PYTHON_LICENSE = "PSF-2.0"
SHA256_BASE64_CHARACTERS = 43  # without padding

LANGUAGES = {
    ".py": "python",
    ".pyi": "python",
    ".h": "c",
    ".hpp": "c++",
    ".cuh": "c++",
    ".md": "markdown",
    ".rst": "restructuredtext",
    ".txt": "text",
}
README_LANGUAGES = {"text/markdown": "markdown", "text/x-rst": "restructuredtext", "text/plain": "text"}


@dataclass(frozen=True)
class InstalledFile(Part):
    """A file to read, with its labels and its recorded digest."""

    file: str = ""
    package: str = ""
    license: str = ""
    language: str = ""
    sha256: bytes | None = None  # None: not recorded
    readme: bool = False  # a METADATA file: its text is the description


class Installed(Reader):
    """The environment that runs bloomline. Editable installs and bloomline itself are skipped."""

    kind: Literal["installed"] = "installed"
    # Names of distributions, or patterns ("*", "ray*"); "python" is the standard library with its C headers.
    packages: tuple[str, ...] = Field(default=(PYTHON, "*"), min_length=1)
    suffixes: tuple[str, ...] = (".py", ".md", ".rst", ".txt", ".h")
    exclude: tuple[str, ...] = ()  # patterns of paths to skip ("*/tests/*")
    readme: bool = True  # also read the descriptions in METADATA

    def digest_content(self, digest_file: Callable[[Path], str]) -> str:
        # Every plan runs this, and a large environment has 100,000 lines of RECORD: one expression selects the lines.
        endings = "|".join(map(re.escape, self.suffixes))
        relevant = re.compile(rf'^"?(?:[^\n,]*(?:{endings})|[^/\n]+\.dist-info/METADATA)"?,.*$', re.MULTILINE)
        found: dict[str, object] = {}
        for distribution in self._distributions():
            lines = relevant.findall(distribution.record())
            if self.exclude:
                lines = [line for line in lines if self._wanted(line.partition(",")[0])]
            found[distribution.folder.name] = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
        if PYTHON in self.packages:
            found[PYTHON] = sorted([part.name, digest_file(Path(part.file))] for part in self._standard_library())
        return digest_of([found, sorted(self.suffixes), sorted(self.exclude), self.readme, self.version])

    def parts(self) -> list[InstalledFile]:
        found = [file for distribution in self._distributions() for file in self._files(distribution)]
        if PYTHON in self.packages:
            found += self._standard_library()
        if not found:
            raise StageError(
                f"the packages {', '.join(self.packages)} have no file with a suffix of {', '.join(self.suffixes)}: "
                "change reader.packages or reader.suffixes"
            )
        return sorted(found, key=lambda part: (part.package, part.name))

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, InstalledFile)
        data, refused = _content(part, max_bytes)
        size = refused[1] if refused else 0
        if refused is None and part.readme:
            data = str(_metadata(Path(part.file).parent).get_payload()).encode("utf-8", "surrogateescape")
        if data or refused:
            yield Candidate(
                data,
                part.name,
                package=part.package,
                license=part.license,
                language=part.language,
                refused=refused[0] if refused else None,
                refused_bytes=size,
            )

    def _distributions(self) -> list[_Distribution]:
        """The distributions asked for, by name. Raises StageError if one asked for by its full name is not there."""
        installed = _installed()
        asked = {pattern: _normal(pattern) for pattern in self.packages if pattern != PYTHON}
        for pattern, name in asked.items():
            if not any(fnmatchcase(found, name) for found in installed):
                raise StageError(
                    f"reader.packages: no installed package matches {pattern!r} (of {len(installed)} in "
                    f"{sysconfig.get_path('purelib')}): install it, or remove it from the list"
                )
        return [
            installed[name]
            for name in sorted(installed)
            if any(fnmatchcase(name, pattern) for pattern in asked.values()) and not installed[name].editable()
        ]

    def _wanted(self, path: str) -> bool:
        return not (self.exclude and _any_of(self.exclude).match(path))

    def _files(self, distribution: _Distribution) -> Iterator[InstalledFile]:
        root, metadata = distribution.folder.parent, f"{distribution.folder.name}/METADATA"
        facts = _metadata(distribution.folder)
        license_ = _license(facts)
        for path, checksum, size in distribution.rows():
            suffix = os.path.splitext(path)[1]
            if path == metadata and self.readme:
                language = README_LANGUAGES.get((facts.get("Description-Content-Type") or "").partition(";")[0], "text")
                readme = True
            elif path.startswith(("../", "/")) or ".dist-info/" in path:
                continue  # a script in bin/, a licence's text
            elif suffix in self.suffixes and self._wanted(path):
                language, readme = LANGUAGES.get(suffix, ""), False
            else:
                continue
            yield InstalledFile(
                path,
                size,
                file=str(root / path),
                package=distribution.name,
                license=license_,
                language=language,
                sha256=checksum,
                readme=readme,
            )

    def _standard_library(self) -> Iterator[InstalledFile]:
        for root, prefix in ((sysconfig.get_path("stdlib"), ""), (sysconfig.get_path("include"), "include/")):
            for folder, folders, names in os.walk(root):
                folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages")]
                for name in names:
                    suffix = os.path.splitext(name)[1]
                    file = os.path.join(folder, name)
                    path = prefix + os.path.relpath(file, root).replace(os.sep, "/") if suffix in self.suffixes else ""
                    if path and self._wanted(path) and os.path.isfile(file):
                        yield InstalledFile(
                            path,
                            os.path.getsize(file),
                            file=file,
                            package=PYTHON,
                            license=PYTHON_LICENSE,
                            language=LANGUAGES.get(suffix, ""),
                        )


@dataclass(frozen=True)
class _Distribution:
    name: str
    folder: Path  # NAME-VERSION.dist-info

    def record(self) -> str:
        """The text of RECORD; empty if the installer wrote none."""
        try:
            return (self.folder / "RECORD").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def rows(self) -> Iterator[tuple[str, bytes, int]]:
        """Path, SHA-256 and size of every file whose SHA-256 is recorded."""
        for row in csv.reader(self.record().splitlines()):
            if len(row) == 3 and row[1].startswith("sha256=") and row[2].isdigit():
                digest = row[1].removeprefix("sha256=").rstrip("=")
                if len(digest) == SHA256_BASE64_CHARACTERS:
                    yield row[0], base64.urlsafe_b64decode(digest + "="), int(row[2])

    def editable(self) -> bool:
        try:
            direct = json.loads((self.folder / "direct_url.json").read_bytes())
            return bool(direct.get("dir_info", {}).get("editable"))
        except (OSError, ValueError, AttributeError):
            return False


def _content(part: InstalledFile, max_bytes: int) -> tuple[bytes, tuple[Drop, int] | None]:
    """The bytes of a file, or why it is dropped, with the number of its bytes."""
    try:
        size = os.stat(part.file).st_size
        if size > max_bytes:
            return b"", (too_long(size, max_bytes), size)
        data = Path(part.file).read_bytes()
    except OSError as error:
        return b"", (Drop("unreadable", error.strerror or str(error), ""), part.size)
    if part.sha256 is not None and (found := hashlib.sha256(data)).digest() != part.sha256:
        return b"", (Drop("altered", found.hexdigest(), part.sha256.hex()), len(data))
    return data, None


def _installed() -> dict[str, _Distribution]:
    """The distributions of this environment, by normalised name.

    Searches the environment's own folders and not `sys.path`, which differs between a driver and its workers.
    """
    found: dict[str, _Distribution] = {}
    for folder in sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for entry in sorted(Path(folder).glob("*.dist-info")):
            name = _normal(entry.name.partition("-")[0])
            if name != OWN_NAME:
                found.setdefault(name, _Distribution(name, entry))
    return found


@cache
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """An expression that matches what any of the `fnmatch` patterns matches, with case."""
    return re.compile("|".join(map(translate, patterns)))


def _normal(name: str) -> str:
    """A distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata(folder: Path) -> Message:
    """The core metadata of a .dist-info folder; empty without METADATA."""
    try:
        text = (folder / "METADATA").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        text = ""
    return message_from_string(text)


def _license(metadata: Message) -> str:
    """The licence in a package's metadata: an expression, a short text, or its classifiers."""
    # The field License may hold the text of the licence instead of its name.
    for field, longest in (("License-Expression", 512), ("License", 64)):
        value = (metadata.get(field) or "").strip()
        if value and value.isprintable() and len(value) <= longest and value.upper() != "UNKNOWN":
            return str(value)
    classifiers = metadata.get_all("Classifier") or []
    names = [line.rpartition("::")[2].strip() for line in classifiers if line.startswith("License ::")]
    return " OR ".join(sorted(set(names) - {"OSI Approved"})) or "unknown"
