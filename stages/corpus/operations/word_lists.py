"""Word lists and parameter tables of operations, by name or as files: one word per line, or YAML by language."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import field_validator

from stages.base import External, StageError
from stages.corpus.languages import quality_code

LIST_LIMIT_BYTES = 256 << 20
TABLE_LIMIT_BYTES = 1 << 20


class WordList(External):
    """A UTF-8 file with one entry per line. Empty lines and lines that begin with "#" are ignored."""

    path: Path

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()  # workers run in other folders than the command

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        try:
            return digest_file(self.path)
        except OSError as error:
            raise StageError(f"{self.path}: the list cannot be read: {error.strerror}") from None

    def entries(self) -> frozenset[str]:
        """The entries, without surrounding white space. Raises StageError if the file is not such a list."""
        try:
            if self.path.stat().st_size > LIST_LIMIT_BYTES:
                raise StageError(f"{self.path} is larger than {LIST_LIMIT_BYTES} bytes: not a list of entries")
            lines = self.path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise StageError(f"{self.path}: the list cannot be read: {reason}; expected a text file") from None
        return frozenset(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def stop_words(language: str, given: WordList | None = None) -> frozenset[str]:
    """The stop words of a language in lower case: the given ones, or the known ones. Empty if there are none."""
    return _entries(given) if given is not None else _known_stop_words(quality_code(language))


@lru_cache(maxsize=64)
def _entries(given: WordList) -> frozenset[str]:
    return frozenset(entry.lower() for entry in given.entries())


@cache
def _known_stop_words(code: str) -> frozenset[str]:
    import stopwordsiso

    return (
        frozenset(word.lower() for word in stopwordsiso.stopwords(code)) if stopwordsiso.has_lang(code) else frozenset()
    )


def quality_table(name: str) -> Any:
    """The table `name` of conf/corpus/quality, or a YAML file. Raises ValueError if it is missing or not YAML."""
    import yaml

    shipped = files("conf").joinpath("corpus", "quality")
    file: Any = Path(name) if name.endswith((".yaml", ".yml")) else shipped.joinpath(f"{name}.yaml")
    try:
        text = file.read_text("utf-8")
        if len(text) > TABLE_LIMIT_BYTES:
            raise ValueError(f"{name}: more than {TABLE_LIMIT_BYTES} characters: not a table of parameters")
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError):
        known = sorted(entry.name.removesuffix(".yaml") for entry in shipped.iterdir() if entry.name.endswith(".yaml"))
        raise ValueError(
            f"no table {name!r}; expected one of {', '.join(known)}, or a path that ends in .yaml"
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {str(error).splitlines()[0]}") from None
