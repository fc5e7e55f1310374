"""A run in MLflow's terms, as plain operations: what the spool holds and `mlflow_store` carries out.

Every operation names its run by `key`: a step's name, or "" for the parent. Each is idempotent, so that one whose
answer was lost can be sent again. Limits of MLflow (lengths, characters) are met here, once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from pipelines.metric_groups import grouped
from pipelines.summary import RunSummary, StepSummary
from pipelines.tracking import descriptions
from pipelines.tracking.spool import Operation

PARENT = ""
MAX_PARAMETER = 6000  # characters; MLflow 3 refuses more
MAX_TAG = 8000
MAX_KEY = 250
MAX_DIGEST = 36
MAX_MEASURES = 20  # as tags of a version, which MLflow takes one by one; all of them are in its description
SOURCE = "bloomline"  # MLflow shows what follows the last "/" of it, so a command would be cut
CUT = " … (cut; whole in config.json)"

STATUS = {"done": "FINISHED", "cached": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "running": "RUNNING"}

Point = tuple[str, float, int, int]  # name, value, milliseconds since the epoch, step


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def key_of(name: str) -> str:
    """A name that MLflow takes for a parameter or metric: a few characters, and no way out of a folder.

    MLflow reads a name as a path and refuses whatever begins with "..", so "..0" as well as "../0".
    """
    text = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:MAX_KEY]
    return "/".join(part for part in (part.lstrip(".") for part in text.split("/")) if part) or "_"


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT


def flat(config: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested config as dotted keys and texts: the parameters of a step. Lists stay whole."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            found[key_of(f"{prefix}{name}")] = cut(text, MAX_PARAMETER)
    return found


def tags(values: Mapping[str, object]) -> dict[str, str]:
    """Tags under our own prefix; empty values are left out."""
    return {f"bloomline.{name}": cut(str(value), MAX_TAG) for name, value in values.items() if value not in (None, "")}


def log(
    key: str,
    points: Iterable[Point] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    model: str | None = None,
) -> Operation:
    """Values of a run. `model`: the fingerprint of the model that the points are about."""
    return {"op": "log", "key": key, "points": list(points), "params": params or {}, "tags": tags or {}, "model": model}


# ---------------------------------------------------------------------------------------------------------------
# The parent


def run_started(run: RunSummary, driver: Mapping[str, object]) -> Iterable[Operation]:
    """The parent run with all that is known before anything ran. `driver` identifies the process that owns it."""
    source = {"mlflow.source.name": SOURCE, "mlflow.source.type": "LOCAL", "mlflow.user": run.user}
    if run.git_commit:
        source["mlflow.source.git.commit"] = run.git_commit
    own: dict[str, object] = {
        "run": run.run_id,
        "pipeline": run.pipeline,
        "driver": json.dumps(driver),
        "git_dirty": run.git_dirty,
    }
    own |= {"user": run.user, "sweep": run.sweep, "commit": run.git_commit, "command": run.command}
    versions = {f"version.{name}": version for name, version in run.versions.items()}
    yield {
        "op": "run",
        "key": PARENT,
        "name": run.name or run.run_id,
        "at": milliseconds(run.started),
        "tags": source | tags(own) | tags(versions),
        "about": descriptions.of_experiment(run),
    }
    yield {"op": "describe", "key": PARENT, "description": descriptions.of_run(run)}
    yield log(PARENT, params=flat(run.parameters))
    yield {"op": "text", "key": PARENT, "path": "config.yaml", "text": run.config_yaml}
    yield {"op": "text", "key": PARENT, "path": "plan.txt", "text": plan_text(run.steps)}


def run_finished(run: RunSummary, graph_svg: str) -> Iterable[Operation]:
    """The parent's end: summary, graph with states, headline metrics. Runs of steps still open end as the run did."""
    yield {"op": "text", "key": PARENT, "path": "graph.svg", "text": graph_svg}
    at = milliseconds(run.started + run.seconds)
    points = [(key_of(f"{s.name}/{s.headline[0]}"), s.headline[1], at, 0) for s in run.steps if s.headline]
    points += [(key_of(f"{s.name}/seconds"), s.seconds, at, 0) for s in run.steps if s.seconds is not None]
    yield log(PARENT, points, tags=tags({"state": run.state}))
    yield {"op": "describe", "key": PARENT, "description": descriptions.of_run(run)}
    yield from _versions(run)
    yield closed(run.state, at)


def closed(state: str, at: int) -> Operation:
    """End the parent, and with it every run of a step that has not ended."""
    return {"op": "close", "status": STATUS[state], "at": at}


def plan_text(steps: Sequence[StepSummary]) -> str:
    """The plan as plain text, one step a line."""
    rows = [(step.name, step.stage, step.state, step.reason) for step in steps]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows)
    return "".join(f"{line}  {row[3]}\n" for line, row in zip(padded, rows, strict=True))


# ---------------------------------------------------------------------------------------------------------------
# A step


def step_started(step: StepSummary, label: str, run: RunSummary, at: int) -> Iterable[Operation]:
    """A child run of a run. `label`: its name in MLflow, say "02-pretrain"."""
    own: dict[str, object] = {
        "run": run.run_id,
        "step": step.name,
        "stage": step.stage,
        "fingerprint": step.fingerprint,
    }
    own |= {"reason": step.reason}
    source = {"mlflow.source.name": SOURCE, "mlflow.source.type": "LOCAL", "mlflow.user": run.user}
    yield {"op": "run", "key": step.name, "name": label, "at": at, "tags": source | tags(own)}
    whole = json.dumps(step.config, indent=2, ensure_ascii=False, default=str)
    yield {"op": "text", "key": step.name, "path": "config.json", "text": whole}
    yield log(step.name, params=flat(step.config))


def inputs(step: StepSummary, made: Mapping[str, StepSummary]) -> Iterable[Operation]:
    """The datasets and models that a step reads. `made`: the steps before it that are done, by name."""
    read = [made[name] for name in step.inputs if name in made]
    datasets = [
        {
            "name": source.name,
            "digest": source.fingerprint[:MAX_DIGEST],
            "source": source.artifact or "",
            "type": source.artifact_type or "",
            "profile": json.dumps(source.facts, default=str),
            "context": step.name,
        }
        for source in read
        if source.artifact_role == "dataset"
    ]
    models = [source.fingerprint for source in read if source.artifact_role == "model"]
    if datasets or models:
        yield {"op": "inputs", "key": step.name, "datasets": datasets, "models": models}


def step_finished(
    step: StepSummary, points: Sequence[Point], made: Mapping[str, StepSummary], at: int
) -> Iterable[Operation]:
    """What a step left. `points`: the last point of each metric, which its model is shown with as well."""
    own: dict[str, object] = {"state": step.state, "artifact": step.artifact, "artifact_type": step.artifact_type}
    own |= {"size_bytes": step.size_bytes, "error": step.error}
    if step.facts:
        facts = json.dumps(step.facts, indent=2, ensure_ascii=False, default=str)
        yield {"op": "text", "key": step.name, "path": "artifact.json", "text": facts}
    yield from _model(step, step.name)
    model = step if step.artifact_role == "model" else _only_model(step, made)
    about = model.fingerprint if model is not None else None
    described = {"mlflow.note.content": cut(descriptions.of_step(step), MAX_TAG)}
    yield log(step.name, points, tags=tags(own) | described, model=about)
    yield from _registration(step, made)
    yield {"op": "end", "key": step.name, "status": STATUS[step.state], "at": at}


def step_cached(step: StepSummary, made: Mapping[str, StepSummary]) -> Iterable[Operation]:
    """A step that was not computed: it has no run, but its model may be new to this MLflow, or to the registry."""
    yield from _model(step, PARENT)
    yield from _registration(step, made)


def _model(step: StepSummary, key: str) -> Iterable[Operation]:
    """The model of a step, if it has one. `key`: the run that made it, or else that speaks of it."""
    if step.artifact_role != "model" or not step.artifact:
        return
    predictor = step.predictor
    yield {
        "op": "model",
        "key": key,
        "name": step.name,
        "fingerprint": step.fingerprint,
        "type": step.artifact_type or "model",
        "params": flat(step.config),
        "tags": tags({"artifact": step.artifact, "size_bytes": step.size_bytes, "fingerprint": step.fingerprint}),
        "made": step.state == "done",
        "artifact": {
            "step": step.name,
            "class": step.artifact_class,
            "root": step.artifact.rsplit("/", 3)[0],  # of the store: an artifact is at ROOT/artifacts/STAGE/NAME
            "fingerprint": step.fingerprint,
        },
        "predictor": asdict(predictor) if predictor else None,
    }


def _only_model(step: StepSummary, made: Mapping[str, StepSummary]) -> StepSummary | None:
    """The model that a step which makes none speaks of: the one it reads, if it is one."""
    read = [made[name] for name in step.inputs if name in made and made[name].artifact_role == "model"]
    return read[0] if len(read) == 1 else None


def _registration(step: StepSummary, made: Mapping[str, StepSummary]) -> Iterable[Operation]:
    """A step whose artifact states `registered_name` has put the nearest model upstream to use: register it."""
    name = step.facts.get("registered_name")
    if not (isinstance(name, str) and name and step.state in ("done", "cached")):
        return
    model = _nearest_model(step, made)
    if model is not None:
        alias = step.facts.get("alias")
        alias = re.sub(r"[^\w-]", "-", alias, flags=re.ASCII) if isinstance(alias, str) else ""
        yield {
            "op": "register",
            "name": re.sub(r"[/:]", "-", name),
            "alias": alias,
            "about": f"Models that the step {step.name} puts to use. A version is one fingerprint. Its description has "
            f"its measures and what it was made from; the alias {alias or 'of the deployment'} is the latest.",
            "fingerprint": model.fingerprint,
            "tags": tags({"artifact": model.artifact, "deployment": step.artifact, "fingerprint": model.fingerprint}),
        }


def _versions(run: RunSummary) -> Iterable[Operation]:
    """What is known of the registered versions at the end of a run: their measures, and what they were made from."""
    made = {step.name: step for step in run.steps if step.state in ("done", "cached")}
    for step in made.values():
        model = _nearest_model(step, made)
        for registration in _registration(step, made) if model else ():
            assert model is not None
            lineage = _lineage(model, made)
            names = {source.name for source in lineage}
            measures = {
                f"{one.name}.{name}": value
                for one in made.values()
                if one.artifact_role is None and names & set(one.inputs) and one.name not in names
                for name, value in one.metrics.items()
            }
            corpora = [f"{one.name} {one.fingerprint[:12]}" for one in lineage if one.artifact_role == "dataset"]
            own: dict[str, object] = {"run": run.run_id, "pipeline": run.pipeline, "commit": run.git_commit}
            own |= {"user": run.user, "datasets": ", ".join(corpora)}
            own |= {"steps": ", ".join(f"{one.name} {one.fingerprint[:12]}" for one in lineage)}
            own |= {key_of(f"metric.{name}"): f"{value:.6g}" for name, value in list(measures.items())[:MAX_MEASURES]}
            yield {
                "op": "version",
                "key": PARENT,
                "name": registration["name"],
                "fingerprint": model.fingerprint,
                "tags": tags(own),
                "description": descriptions.of_version(run, model, lineage, measures, registration["name"]),
            }


def _lineage(step: StepSummary, made: Mapping[str, StepSummary]) -> list[StepSummary]:
    """A step and all that it was made from, in the order of the run."""
    names, level = {step.name}, [step]
    while level:
        level = [made[name] for one in level for name in one.inputs if name in made and name not in names]
        names |= {one.name for one in level}
    return [one for name, one in made.items() if name in names]


def _nearest_model(step: StepSummary, made: Mapping[str, StepSummary]) -> StepSummary | None:
    level = list(step.inputs)
    seen: set[str] = set()
    while level:
        sources = [made[name] for name in level if name in made]
        model = next((source for source in sources if source.artifact_role == "model"), None)
        if model is not None:
            return model
        seen.update(level)
        level = [
            name for name in dict.fromkeys(name for source in sources for name in source.inputs) if name not in seen
        ]
    return None


def metric_points(values: Mapping[str, float], at_step: int | None, at_time: float) -> list[Point]:
    """Points of curves, named in groups. Values that are no numbers are left out: a tracking must not stop a run."""
    points: list[Point] = []
    for name, value in values.items():
        try:
            points.append((key_of(grouped(name)), float(value), milliseconds(at_time), at_step or 0))
        except (TypeError, ValueError, OverflowError):
            continue
    return points


def file(key: str, kept: str, folder: str | None = None) -> Operation:
    """An artifact file that the spool keeps as `kept`."""
    return {"op": "file", "key": key, "file": kept, "folder": folder}
