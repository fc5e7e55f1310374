"""Checks the project's English: its pages and configuration, and the docstrings, comments and messages of its code.

Of the tests, it checks docstrings, comments and the names of functions and classes: other strings there are data.

    python -m tests.project.prose        prints every match; the exit code is 1 if there is one

Each pattern is an idiom that the field has a plain word for. A pattern with false alarms does not belong here.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.project.support import ROOT

# What is not written -> what is written instead.
IDIOMS = {
    r"anew": "again",
    r"told": "reported, known, forecast",
    r"beside": "next to, in addition to",
    r"(?:goes?|went) on(?! (?:to|the|a)\b)": "continues, resumes",
    r"lies?(?! between\b)": "is",
    r"(?<!there )is no(?! longer\b)(?! \w+ than\b)": "is not a",
    r"so many": "the given number of",
    r"of its own": "its own ...",
    r"what comes out": "the result",
    r"in the place of": "in, instead of",
    r"at the most": "at most",
    r"for so long": "for that time",
    r"holds? (?:it|them) to": "checks it against",
}
PATTERNS = {re.compile(rf"\b{idiom}\b", re.IGNORECASE): better for idiom, better in IDIOMS.items()}
FOLDERS = ("pipelines", "cluster", "stages", "benchmarks", "examples", "conf", "docs", "tests", ".github")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
TEXT = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def passages(path: Path, tests: bool) -> Iterator[tuple[int, str]]:
    """The prose of a file, each passage with the number of its first line.

    `tests`: names of functions and classes are prose, and strings other than docstrings are not.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield 1, text
        return
    begins, defines = True, False  # whether a token begins a statement, or follows `def` or `class`
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        docstring = begins and token.type == tokenize.STRING
        if token.type in TEXT and " " in token.string:  # a string of one word is data
            if docstring or token.type == tokenize.COMMENT or not tests:
                yield token.start[0], token.string
        elif tests and defines:
            yield token.start[0], token.string.replace("_", " ")
        defines = token.type == tokenize.NAME and token.string in ("def", "class")
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            begins = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def findings(path: Path, tests: bool = False) -> Iterator[str]:
    """Every match in a file, as `LINE: the words -> what is written instead`. `tests`: the file is a test."""
    for first, passage in passages(path, tests):
        prose = CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), passage)
        words = list(re.finditer(r"\S+", prose))
        flat = " ".join(word[0] for word in words)  # an idiom may be broken over two lines
        for pattern, better in PATTERNS.items():
            for match in pattern.finditer(flat):
                word = words[flat.count(" ", 0, match.start())]
                yield f"{first + prose.count(chr(10), 0, word.start())}: {match[0]!r} -> {better}"


def files() -> list[Path]:
    """The files of the project that hold prose."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    names = [name for name in tracked.stdout.splitlines() if name.endswith((".py", ".md", ".yaml", ".yml"))]
    chosen = [ROOT / name for name in names if name.startswith(FOLDERS) or "/" not in name]
    return [path for path in chosen if path.exists()]


def main() -> int:
    names = {path: path.relative_to(ROOT) for path in files()}
    found = [
        f"{name}:{finding}" for path, name in names.items() for finding in findings(path, name.parts[0] == "tests")
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
