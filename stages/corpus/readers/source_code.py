"""Reads source trees: one document a file, its language by its suffix, its licence by what lies beside it.

A file's licence is the SPDX identifier in its own head, else that of the nearest LICENSE or COPYING in its folder or
one above it, else unknown. Hidden folders, dependencies and links are left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.base import StageError
from stages.corpus.operations.operation import Drop
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
    """A source file."""

    file: str = ""
    language: str = ""
    license: str = ""  # of its tree


class Code(Reader):
    """Folders of source code, on a file system that every node sees. `paths` are the roots of the trees."""

    kind: Literal["code"] = "code"
    paths: Paths
    languages: tuple[str, ...] = tuple(LANGUAGES)
    leave_out: frozenset[str] = LEFT_OUT  # names of folders

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        files = [[part.name, part.license, digest_file(Path(part.file))] for part in self.parts()]
        return digest_of([files, sorted(self.languages), self.version])

    def parts(self) -> list[CodePart]:  # type: ignore[override]  # a Part of its own
        if unknown := sorted(set(self.languages) - LANGUAGES.keys()):
            raise StageError(f"reader.languages: {', '.join(unknown)}; expected some of {', '.join(LANGUAGES)}")
        found = [part for root in self.paths for part in self._tree(Path(root))]
        if not found:
            raise StageError(f"reader.paths: no source file of {', '.join(self.languages)} in {', '.join(self.paths)}")
        return sorted(found, key=lambda part: (part.name, part.file))

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, CodePart)
        labels = {"language": part.language, "license": part.license}
        try:
            size = os.stat(part.file).st_size
            if size > max_bytes:
                drop = too_long(size, max_bytes)
                yield Candidate(b"", part.name, refused=drop, refused_bytes=size, **labels)
                return
            data = Path(part.file).read_bytes()
        except OSError as error:
            drop = Drop("unreadable", error.strerror or str(error), "")
            yield Candidate(b"", part.name, refused=drop, refused_bytes=part.size, **labels)
            return
        labels["license"] = declared_licence(data[:HEAD_BYTES]) or part.license
        yield Candidate(data, part.name, **labels)

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
