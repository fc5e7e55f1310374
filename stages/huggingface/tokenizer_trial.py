"""Tries a tokenizer from outside once, in a process that can be killed, before anything depends on it.

A regular expression of a tokenizer.json can take time without an end, or end the process, when it meets a certain text.
The trial encodes texts that repeat each character of the file's expressions, within limits of time and memory. It finds
expressions that backtrack at such repetitions. It cannot prove that there are no others: `stages.artifacts.encoding`
reports those where they fail.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.artifacts.encoding import encode
from stages.artifacts.tokenizer import FILE_LIMIT_BYTES, Tokenizer
from stages.base import StageError

LOADING_CPU_S, ENCODING_CPU_S = 120, 20  # processor time
MEMORY_BYTES = 8 << 30  # of addresses
WALL_S = 1200.0  # on a machine with much other work
REPEATED = 2000  # how often a text repeats a character
EXPRESSION_CHARACTERS = 64  # that are tried, in addition to the usual ones
USUAL = " a1é漢\n\t.'_-"


def try_tokenizer(file: Path, encoding_cpu_s: int = ENCODING_CPU_S) -> None:
    """Raise StageError, which names the file, if the tokenizer cannot be read or cannot encode a text in its time.

    A tokenizer that defines no expressions, and a file that is not JSON, are left to whoever reads the file.
    """
    if not any(_expressions(_values(file))):
        return
    command = [sys.executable, "-P", "-m", __name__, str(file), str(encoding_cpu_s)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"}
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=WALL_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise _refusal(file, f"it was not tried within {WALL_S:g} s") from None
    said = ended.stdout.decode(errors="replace").splitlines()
    if ended.returncode == 0 and said[-1:] == ["good"]:
        return
    loaded = "loaded" in said
    if said and said[-1].startswith("{"):
        raise _refusal(file, json.loads(said[-1])["reason"])
    what = f"encode texts of {REPEATED:,} characters within {encoding_cpu_s} s" if loaded else "be read"
    raise _refusal(file, f"it cannot {what} of processor time and {MEMORY_BYTES >> 30} GiB (exit {ended.returncode})")


def _refusal(file: Path, reason: str) -> StageError:
    return StageError(
        f"{file} is not a usable tokenizer: {reason}. Its regular expressions are expected to take little time for any "
        "text. Get the file from the model's own source, or use the tokenizer of another model."
    )


def texts(values: Any) -> Iterator[str]:
    """Hostile texts for the tokenizer of these values: each character repeated, then some that may not match."""
    expressions = "".join(_expressions(values))
    own = [sign for sign in dict.fromkeys(expressions) if sign.isalnum() or sign in ' _-"<>/#@%&=:;,!~`']
    for sign in dict.fromkeys([*USUAL, *own[:EXPRESSION_CHARACTERS]]):
        # An expression may need one of its other characters somewhere before it tries anything.
        for end in ("!", "\0" + "".join(own)):
            yield sign * REPEATED + end
    yield "".join(own) * (1 + REPEATED // (len(own) or 1))
    yield USUAL * (REPEATED // len(USUAL))


def _values(file: Path) -> Any:
    """What a file contains, without its vocabulary; None if it is too large, missing, or not JSON."""
    try:
        values = json.loads(file.read_bytes()) if file.stat().st_size <= FILE_LIMIT_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    return {key: value for key, value in values.items() if key != "model"} if isinstance(values, dict) else None


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("Regex"), str):
            yield value["Regex"]
        for inner in value.values():
            yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)


def main(file: Path, encoding_cpu_s: int) -> None:
    """The trial, in its own process. Prints "loaded", then "good" or the reason as JSON."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _limit_cpu(LOADING_CPU_S)
    try:
        tokenizer = Tokenizer(file.parent).load()
        values = _values(file)
        print("loaded", flush=True)
        _limit_cpu(encoding_cpu_s)
        for text in texts(values):
            encode(tokenizer, text)
    except (StageError, MemoryError) as error:
        print(json.dumps({"reason": str(error) or type(error).__name__}), flush=True)
        return
    print("good", flush=True)


def _limit_cpu(seconds: int) -> None:
    """End this process once it has used this much more processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
