"""Monolingual texts as pages of words: files on disk, or the documentation of installed Python packages.

Words are lower-case runs of letters. A text may be one half of its pages (`half`), and may have every word replaced by
another (`substitute`): two halves, one of them substituted, stand for two languages where only one text is at hand,
with a dictionary that is known.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import importlib.util
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveInt

from stages.base import External, StageError

WORD = re.compile(r"[^\W\d_]+")
FILE_LIMIT_BYTES = 1 << 30  # of text, uncompressed
MODULE_LIMIT_BYTES = 1 << 20  # larger Python files are tables, not documentation
MIN_PAGE_WORDS = 20  # of a documentation page
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_SUBSTITUTES = "ecdfighjoklmnpuqrstvawxyzb"  # vowels for vowels, so that words stay readable


def substituted(word: str) -> str:
    """The word that stands for `word` in a substituted text. No two words have the same one."""
    return word.translate(str.maketrans(_ALPHABET, _SUBSTITUTES))


def original(word: str) -> str:
    """The word that `substituted` replaces by `word`."""
    return word.translate(str.maketrans(_SUBSTITUTES, _ALPHABET))


class _Text(External):
    half: Literal["all", "first", "second"] = "all"  # of the pages: all, those at even places, those at odd places
    substitute: bool = False  # replace every word by `substituted`

    def pages(self) -> Iterator[list[str]]:
        """The words of each page, in the order of the text. Raises StageError if the text cannot be read."""
        for place, page in enumerate(self._all_pages()):
            if self.half == "all" or (self.half == "second") == bool(place % 2):
                yield [substituted(word) for word in page] if self.substitute else page

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        files = hashlib.sha256()
        for name, path in self._files():
            files.update(f"{name}\0{digest_file(path)}\n".encode())
        options = self.model_dump_json(exclude={"path", "packages"})
        return hashlib.sha256(f"{files.hexdigest()} {options}".encode()).hexdigest()

    def _files(self) -> list[tuple[str, Path]]:
        """The files to read, each with a name that does not depend on where it is."""
        raise NotImplementedError

    def _all_pages(self) -> Iterator[list[str]]:
        raise NotImplementedError


class TextFile(_Text):
    """A text file in UTF-8, plain or .gz, whose pages are separated by lines that equal `page_separator`."""

    kind: Literal["file"] = "file"
    path: Path
    page_separator: str = "<page>"  # "": an empty line

    def _files(self) -> list[tuple[str, Path]]:
        if not self.path.is_file():
            raise StageError(f"{self.path} is not a file: give the path of a text file (.txt or .txt.gz)")
        return [("", self.path)]

    def _all_pages(self) -> Iterator[list[str]]:
        page: list[str] = []
        for line in self._lines():
            if line.strip() == self.page_separator:
                if page:
                    yield page
                page = []
            else:
                page += WORD.findall(line.lower())
        if page:
            yield page

    def _lines(self) -> Iterator[str]:
        self._files()
        size = number = 0
        try:
            with gzip.open(self.path, "rb") if self.path.suffix == ".gz" else self.path.open("rb") as file:
                while line := file.readline(FILE_LIMIT_BYTES):
                    number, size = number + 1, size + len(line)
                    if size > FILE_LIMIT_BYTES:
                        raise StageError(f"{self.path} holds more than {FILE_LIMIT_BYTES} bytes of text: split it")
                    yield line.decode()
        except UnicodeDecodeError:
            raise StageError(f"{self.path}, line {number}: expected text in UTF-8") from None
        except (OSError, EOFError, zlib.error) as error:
            raise StageError(f"{self.path} cannot be read: {error}") from None


class PackageDocumentation(_Text):
    """The docstrings of installed Python packages: each module, class and function is a page."""

    kind: Literal["packages"] = "packages"
    packages: tuple[str, ...] = Field(min_length=1)  # import names
    max_pages: PositiveInt = 20_000

    def _files(self) -> list[tuple[str, Path]]:
        found = []
        for package in self.packages:
            spec = importlib.util.find_spec(package) if package.isidentifier() else None
            if spec is None or not spec.submodule_search_locations:
                raise StageError(f"packages: {package!r} is not an installed Python package")
            root = Path(spec.submodule_search_locations[0])
            for path in sorted(root.rglob("*.py")):
                name = path.relative_to(root.parent).as_posix()
                if "/tests/" not in name and path.stat().st_size <= MODULE_LIMIT_BYTES:
                    found.append((name, path))
        return found

    def _all_pages(self) -> Iterator[list[str]]:
        count = 0
        for _, path in self._files():
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue  # a template, or a file for another version of Python
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    page = WORD.findall((ast.get_docstring(node, clean=False) or "").lower())
                    if len(page) >= MIN_PAGE_WORDS:
                        yield page
                        count += 1
                        if count == self.max_pages:
                            return


Text: TypeAlias = Annotated[TextFile | PackageDocumentation, Field(discriminator="kind")]
