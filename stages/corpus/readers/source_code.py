"""Reads source trees: one document per file, with its language by suffix and its licence.

The licence of a file is the SPDX identifier in its first lines, else the licence in the nearest LICENSE or COPYING in
its folder or a parent folder, else unknown. Hidden folders, dependencies and symbolic links are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.character_sets import utf8_bytes
from stages.corpus.readers.file_systems import Paths
from stages.corpus.readers.licence_files import HEAD_BYTES, declared_licence, is_licence_file, recognise
from stages.corpus.readers.reader import Candidate, Part, Reader, digest_of, too_long

# The programming languages of ROOTS (arXiv 2303.03915, table 6) and C, by suffix.
LANGUAGES = {
    "c": (".c", ".h"),
    "c++": (".cc", ".cpp", ".cxx", ".hpp", ".hh", ".hxx"),
    "c#": (".cs",),
    "go": (".go",),
    "java": (".java",),
    "javascript": (".js", ".mjs", ".cjs", ".jsx"),
    "lua": (".lua",),
    "php": (".php",),
    "python": (".py", ".pyi"),
    "ruby": (".rb",),
    "rust": (".rs",),
    "scala": (".scala",),
    "typescript": (".ts", ".tsx"),
}
BY_SUFFIX = {suffix: language for language, suffixes in LANGUAGES.items() for suffix in suffixes}
LEFT_OUT = frozenset({"node_modules", "vendor", "third_party", "__pycache__", "dist", "build", "target"})


@dataclass(frozen=True)
class CodePart(Part):
    """A source file with its labels."""

    file: str = ""
    language: str = ""
    license: str = ""  # of its folder


class Code(Reader):
    """Folders of source code, on a file system that every node sees. `paths` are the root folders."""

    kind: Literal["code"] = "code"
    paths: Paths
    languages: tuple[str, ...] = tuple(LANGUAGES)
    leave_out: frozenset[str] = LEFT_OUT  # folders with these names are skipped

    def digest_content(self, digest_file: Callable[[Path], str]) -> str:
        files = [[part.name, part.license, digest_file(Path(part.file))] for part in self.parts()]
        return digest_of([files, sorted(self.languages), self.version])

    def parts(self) -> list[CodePart]:
        if unknown := sorted(set(self.languages) - LANGUAGES.keys()):
            raise StageError(f"reader.languages: unknown {', '.join(unknown)}; expected some of {', '.join(LANGUAGES)}")
        found = [part for root in self.paths for part in self._tree(Path(root))]
        if not found:
            raise StageError(f"reader.paths: no source file of {', '.join(self.languages)} in {', '.join(self.paths)}")
        return sorted(found, key=lambda part: (part.name, part.file))

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, CodePart)
        candidate = Candidate(b"", part.name, license=part.license, language=part.language)
        try:
            size = os.stat(part.file).st_size
            if size > max_bytes:
                yield replace(candidate, refused=too_long(size, max_bytes), refused_bytes=size)
                return
            data = Path(part.file).read_bytes()
        except OSError as error:
            drop = Drop("unreadable", error.strerror or str(error), "")
            yield replace(candidate, refused=drop, refused_bytes=part.size)
            return
        data = utf8_bytes(data)  # by its byte order mark
        yield replace(candidate, data=data, license=declared_licence(data[:HEAD_BYTES]) or part.license)

    def _tree(self, root: Path) -> Iterator[CodePart]:
        if not root.is_dir():
            raise StageError(f"reader.paths: {root} is not a folder of source code")
        licences: dict[str, str] = {}
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in self.leave_out)
            own = next(
                filter(None, (recognise(Path(folder, name)) for name in sorted(names) if is_licence_file(name))), ""
            )
            licences[folder] = own or licences.get(os.path.dirname(folder), "")
            for name in sorted(names):
                language, file = BY_SUFFIX.get(os.path.splitext(name)[1].lower(), ""), Path(folder, name)
                if language in self.languages and not file.is_symlink() and file.is_file():
                    path = f"{root.name}/{file.relative_to(root).as_posix()}"
                    yield CodePart(
                        path, file.stat().st_size, file=str(file), language=language, license=licences[folder]
                    )
