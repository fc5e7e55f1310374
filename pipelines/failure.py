"""What a person reads of a step that failed: the frames that matter, and the command that shows what it printed.

A traceback arrives as text, because the exception was raised in another process, maybe on another machine with other
paths. Of its frames, those of the user's code and of the stages matter, and the last one, which says where it was
raised; those that only led there (Ray's, and ours that start and watch the work) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from pipelines import provenance
from pipelines.summary import RunSummary, StepSummary

MOST = 4  # frames
LONGEST_LINE = 160  # characters of a line of code
FRAME = re.compile(r'  File "(?P<file>[^"\n]+)", line (?P<line>\d+)(?:, in (?P<function>.*))?')
CHAINED = re.compile(
    r"\n(?:During handling of the above exception, another exception occurred"
    r"|The above exception was the direct cause of the following exception):\n"
)
LIBRARIES = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python[\d.]+)[/\\]|^<")
PLUMBING = {  # our modules whose frames only lead to the work
    "cluster/forked_process.py",
    "cluster/inline_executor.py",
    "cluster/outcome_capture.py",
    "cluster/parallel_map.py",
    "cluster/printed_output.py",
    "cluster/rank_process.py",
    "cluster/sequential_map.py",
    "cluster/step_process.py",
    "pipelines/execute.py",
}


@dataclass(frozen=True)
class Frame:
    """One frame of a traceback."""

    file: str
    line: int
    function: str
    code: str

    @property
    def place(self) -> str:
        """The end of the path, which is the same on all machines, and the line."""
        path = PurePath(self.file)
        return f"{'/'.join(path.parts[len(path.anchor) :][-3:])}:{self.line}"

    @property
    def matters(self) -> bool:
        """Whether the frame is of a user's code or of a stage."""
        return not LIBRARIES.search(self.file) and "/".join(PurePath(self.file).parts[-2:]) not in PLUMBING


def logs_command(run: RunSummary, step: StepSummary) -> str:
    """The command that shows what a step of a run printed."""
    return provenance.command("logs", [run.run_id, step.name, *run.places])


def ui_command(run: RunSummary) -> str:
    """The command that opens MLflow on the local database of a run."""
    return provenance.command("ui", run.places)


def last_frames(trace: str) -> str:
    """The last frames that matter, two lines each: the place and the code. "" if the trace has none.

    Of chained exceptions, those of the one that ended the work.
    """
    frames = list(_frames(CHAINED.split(trace)[-1]))
    chosen = [frame for frame in frames if frame.matters][-MOST:]
    if frames and frames[-1] not in chosen:
        chosen = [*chosen[-MOST + 1 :], frames[-1]]
    return "\n".join(
        f"{frame.place} in {frame.function}" + (f"\n    {frame.code[:LONGEST_LINE]}" if frame.code else "")
        for frame in chosen
    )


def _frames(trace: str) -> Iterator[Frame]:
    lines = trace.splitlines()
    for index, text in enumerate(lines):
        if found := FRAME.fullmatch(text):
            below = lines[index + 1] if index + 1 < len(lines) else ""
            code = below.strip() if below.startswith("    ") else ""
            yield Frame(found["file"], int(found["line"]), found["function"] or "the file", code)
