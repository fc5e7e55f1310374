"""Describes why a process on Ray was lost, for error messages and notes."""

from __future__ import annotations

import re

from ray.exceptions import RayError


def describe_loss(error: RayError) -> str:
    """The cause that Ray reports, without its ids and advice."""
    text = str(error)
    if "memory" in text and "running low" in text:
        return "it was killed because its node ran out of memory"
    if "node has died" in text or "node was terminated" in text or "preempted" in text:
        return "its node was lost"
    if code := re.search(r"exit code (-?\d+)", text):
        return f"it exited with code {code[1]}"
    if "creation task" in text:
        return f"it could not start: {text.strip().splitlines()[-1]}"
    if "unavailable" in text:
        return "it does not answer"
    return "it was killed (by the system if memory ran out) or it crashed"
