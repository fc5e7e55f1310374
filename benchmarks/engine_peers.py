"""The same six-step graph in bloomline, Kedro, DVC and Prefect, for benchmarks/engine.py.

    a, b -> c -> d -> e, f        c joins a and b; d, e and f add their letter

Each step writes a small text and appends its name to a trace file, which shows the steps that ran. `d_letter` is the
parameter that changes. Each tool is used as its documentation describes for "run only what is needed".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[1]
STEPS = "abcdef"


@dataclass
class Peer:
    """One tool, set up in its own directory."""

    directory: Path
    name: ClassVar[str]
    module: ClassVar[str]  # its import shows whether the tool is installed
    python: ClassVar[str] = sys.executable  # the interpreter that has the module
    run_is_current: ClassVar[bool] = True  # a run executes only what is needed
    environment: dict[str, str] = field(default_factory=dict)

    def set_up(self) -> list[Sequence[str]]:
        """Write the project. Returns the commands that complete it."""
        raise NotImplementedError

    def run(self, d_letter: str = "d") -> Sequence[str]:
        raise NotImplementedError

    def plan(self) -> Sequence[str] | None:
        """The command that reports what would run; None if the tool has none."""
        return None

    def outputs(self) -> dict[str, Path]:
        """The output file of each step."""
        return {step: self.directory / "out" / f"{step}.txt" for step in STEPS}

    def settle(self) -> None:
        """Return once nothing that a command left behind is running."""

    def write(self, path: str, text: str) -> None:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dedent(text))

    @property
    def trace(self) -> Path:
        return self.directory / "trace.txt"


class Bloomline(Peer):
    name = "bloomline"
    module = "pipelines"

    def set_up(self) -> list[Sequence[str]]:
        self.write(
            "conf/pipeline/six.yaml",
            f"""\
            # @package _global_
            name: six
            steps:
              a: {{stage: text, letter: a, trace: {self.trace}}}
              b: {{stage: text, letter: b, trace: {self.trace}}}
              c: {{stage: text, letter: "", inputs: [a, b], trace: {self.trace}}}
              d: {{stage: text, letter: d, inputs: [c], trace: {self.trace}}}
              e: {{stage: text, letter: e, inputs: [d], trace: {self.trace}}}
              f: {{stage: text, letter: f, inputs: [d], trace: {self.trace}}}
            """,
        )
        return []

    def run(self, d_letter: str = "d") -> Sequence[str]:
        return self._command("run", f"steps.d.letter={d_letter}")

    def plan(self) -> Sequence[str]:
        return self._command("plan", "steps.d.letter=d")

    def outputs(self) -> dict[str, Path]:
        found = {}
        for path in sorted(
            self.directory.glob("store/artifacts/text/*/text.txt"), key=lambda path: path.stat().st_mtime
        ):
            found[path.parent.name.split("-")[0]] = path
        return found

    def settle(self) -> None:
        """A short run leaves MLflow's database to a process that outlives it."""
        while any(self.directory.glob("store/runs/*/spool/operations.jsonl")):
            time.sleep(0.1)

    def _command(self, verb: str, *overrides: str) -> Sequence[str]:
        searched = f"hydra.searchpath=[file://{self.directory}/conf]"
        store = f"store.root={self.directory}/store"
        return [
            sys.executable,
            str(ROOT / "benchmarks" / "engine.py"),
            verb,
            searched,
            "pipeline=six",
            store,
            *overrides,
        ]


class Kedro(Peer):
    name = "kedro"
    module = "kedro"
    run_is_current = False  # every run runs everything; --only-missing-outputs judges by existence

    def set_up(self) -> list[Sequence[str]]:
        self.write(
            "pyproject.toml",
            """\
            [tool.kedro]
            package_name = "six_steps"
            project_name = "six"
            kedro_init_version = "1.0.0"
            source_dir = "src"
            """,
        )
        self.write("src/six_steps/__init__.py", "")
        self.write("src/six_steps/settings.py", "")
        self.write(
            "src/six_steps/pipeline_registry.py",
            f"""\
            from kedro.pipeline import node, pipeline

            def step(name, *takes):
                def run(*texts):
                    open({str(self.trace)!r}, "a").write(name)
                    letter = texts[-1] if takes[-1:] == ("params:d_letter",) else ("" if name == "c" else name)
                    texts = texts[:-1] if takes[-1:] == ("params:d_letter",) else texts
                    return "".join(texts) + letter
                run.__name__ = name
                return node(run, list(takes) or None, name + "_text", name=name)

            def register_pipelines():
                return {{"__default__": pipeline([
                    step("a"), step("b"), step("c", "a_text", "b_text"), step("d", "c_text", "params:d_letter"),
                    step("e", "d_text"), step("f", "d_text")])}}
            """,
        )
        kind = "kedro_datasets.text.TextDataset"
        catalog = "".join(f"{step}_text:\n  type: {kind}\n  filepath: out/{step}.txt\n" for step in STEPS)
        self.write("conf/base/catalog.yml", catalog)
        self.write("conf/base/parameters.yml", "d_letter: d\n")
        (self.directory / "conf/local").mkdir(parents=True)
        self.environment["KEDRO_DISABLE_TELEMETRY"] = "1"
        return []

    def run(self, d_letter: str = "d") -> Sequence[str]:
        return [sys.executable, "-m", "kedro", "run", "--only-missing-outputs", f"--params=d_letter={d_letter}"]


class Dvc(Peer):
    name = "dvc"
    module = "dvc"

    def set_up(self) -> list[Sequence[str]]:
        self.write(
            "step.py",
            f"""\
            import sys, yaml
            name, *takes = sys.argv[1:]
            open({str(self.trace)!r}, "a").write(name)
            letter = yaml.safe_load(open("params.yaml"))["d_letter"] if name == "d" else "" if name == "c" else name
            open(f"out/{{name}}.txt", "w").write("".join(open(f"out/{{s}}.txt").read() for s in takes) + letter)
            """,
        )
        takes = {"a": "", "b": "", "c": "ab", "d": "c", "e": "d", "f": "d"}
        stages = ["stages:"]
        for step in STEPS:
            command = " ".join([sys.executable, "step.py", step, *takes[step]])
            stages.append(f"  {step}:\n    cmd: {command}\n    deps:\n    - step.py")
            stages += [f"    - out/{source}.txt" for source in takes[step]]
            stages += ["    params: [d_letter]"] if step == "d" else []
            stages.append(f"    outs:\n    - out/{step}.txt")
        self.write("dvc.yaml", "\n".join(stages) + "\n")
        self.write("params.yaml", "d_letter: d\n")
        (self.directory / "out").mkdir()
        self.environment["DVC_NO_ANALYTICS"] = "1"
        dvc = [sys.executable, "-m", "dvc"]
        return [[*dvc, "init", "--no-scm", "--quiet"], [*dvc, "config", "core.analytics", "false"]]

    def run(self, d_letter: str = "d") -> Sequence[str]:
        self.write("params.yaml", f"d_letter: {d_letter}\n")
        return [sys.executable, "-m", "dvc", "repro"]

    def plan(self) -> Sequence[str]:
        return [sys.executable, "-m", "dvc", "status"]


class Prefect(Peer):
    """Prefect needs a separate environment: its server (3.8) does not start with the FastAPI that bloomline needs."""

    name = "prefect"
    module = "prefect"
    python = os.environ.get("PREFECT_PYTHON", sys.executable)

    def set_up(self) -> list[Sequence[str]]:
        self.write(
            "flow.py",
            f"""\
            import sys
            from prefect import flow, task
            from prefect.cache_policies import INPUTS, TASK_SOURCE

            @task(persist_result=True, result_serializer="json", cache_policy=INPUTS + TASK_SOURCE)
            def step(name, letter, *texts):
                open({str(self.trace)!r}, "a").write(name)
                return "".join(texts) + letter

            @flow
            def six(d_letter):
                a, b = step("a", "a"), step("b", "b")
                d = step("d", d_letter, step("c", "", a, b))
                return step("e", "e", d), step("f", "f", d)

            if __name__ == "__main__":
                print(six(sys.argv[1])[0])
            """,
        )
        home = self.directory / "home"
        self.environment |= {
            "PREFECT_HOME": str(home),
            "PREFECT_LOCAL_STORAGE_PATH": str(self.directory / "out"),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        }
        return []

    def run(self, d_letter: str = "d") -> Sequence[str]:
        return [self.python, "flow.py", d_letter]

    def outputs(self) -> dict[str, Path]:
        """Results are files named by their cache keys. The content of a file shows which step wrote it."""
        texts = {"a": "a", "b": "b", "c": "ab", "d": "abd", "e": "abde", "f": "abdf"}
        found = {}
        for path in (self.directory / "out").glob("*"):
            content = path.read_text(errors="replace") if path.is_file() else ""
            for step, text in texts.items():
                if rf'"result":"\"{text}\""' in content:
                    found[step] = path
        return found


PEERS: tuple[type[Peer], ...] = (Bloomline, Kedro, Dvc, Prefect)


def environment(peer: Peer) -> dict[str, str]:
    """The environment variables of a tool's processes: a separate home, no telemetry."""
    home = peer.directory / "home"
    home.mkdir(exist_ok=True)
    return {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), **peer.environment}
