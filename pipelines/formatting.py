"""Numbers, times and sizes as people read them: in tables, the report and the notes."""

from __future__ import annotations

import math

LONGEST_VALUE = 24  # characters


def duration(seconds: float) -> str:
    """A time as people say it: 0.4 s, 12.3 s, 2 min 05 s, 1 h 02 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def number(value: float) -> str:
    """A number with four significant digits, without an exponent where that is legible."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def metric(name: str, value: float) -> str:
    """The value of a metric: with a unit of size where it counts bytes, as its name says."""
    return size(round(value)) if counts_bytes(name) and 0 <= value < math.inf else number(value)


def counts_bytes(name: str) -> bool:
    """Whether a metric is a number of bytes, as its name says."""
    words = name.split("_")
    return "bytes" in words and words[:2] != ["bytes", "per"]


def quantity(name: str, value: float) -> tuple[str, str]:
    """The name of a metric for people, without its group, and its value. A unit is in one of the two, not in both."""
    words = name.rpartition("/")[2].split("_")
    label = " ".join(words)
    if not math.isfinite(value):
        return label, number(value)
    if "bytes" in words and words[:2] != ["bytes", "per"] and words[-3:] != ["bits", "per", "byte"] and value >= 0:
        left = [word for word in words if word != "bytes"]
        return " ".join(["size", *left] if words[0] == "bytes" else left), size(round(value))
    if words[0] == "seconds" and len(words) > 1:
        left = words[1:]
        return " ".join(["time", *left] if left[0] == "per" else [*left, "time"]), short_time(value)
    if words[-1] == "utilisation":
        return label, f"{value:.1%}"
    for ending, unit in (("ms", "ms"), ("seconds", "s"), ("kilobytes", "kB"), ("megabytes", "MB")):
        if words[-1] == ending and len(words) > 1:
            return " ".join(words[:-1]), short_time(value) if unit == "s" else f"{number(value)} {unit}"
    return label, number(value)


def short_time(seconds: float) -> str:
    """A time that may be far below a second: 0.42 ms, 58.5 ms, 12.3 s."""
    if 0 < abs(seconds) < 1:
        return f"{1000 * seconds:.3g} ms"
    return duration(seconds) if seconds >= 0 else f"{number(seconds)} s"


def brief(value: float) -> str:
    """A number in at most six characters or so: 950, 45.2k, 14.1M."""
    for least, unit, letter in ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if least <= abs(value) < math.inf:
            return f"{value / unit:.1f}{letter}"
    return number(value)


def short_value(value: str) -> str:
    """A value in at most 24 characters: a long number is rounded, a long text loses its middle."""
    try:
        if len(value) > 8:
            return f"{float(value):.4g}"
    except ValueError:
        pass
    half = LONGEST_VALUE // 2
    return value if len(value) <= LONGEST_VALUE else f"{value[: half - 1]}…{value[-half:]}"


def size(count: int) -> str:
    """Bytes with a binary unit: 512 B, 3.4 KiB, 1.2 GiB."""
    unit, bytes_of_unit = size_unit(count)
    return f"{count} B" if unit == "B" else f"{count / bytes_of_unit:.1f} {unit}"


def size_unit(count: float) -> tuple[str, int]:
    """The binary unit in which a number of bytes is said, and how many bytes that is."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = next((power for power in range(len(units) - 1) if abs(count) < 1024 ** (power + 1)), len(units) - 1)
    return units[power], 1024**power
