"""`bloomline jobs` and `bloomline manifest`: the jobs of a cluster, and what makes a cluster on Kubernetes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from cluster.config import RemoteCluster
from cluster.terminal_text import clean, say
from pipelines import config, outline, own_keys, project, terminal, verbs
from pipelines.errors import BloomlineError, nearest
from pipelines.formatting import duration
from pipelines.redaction import shown_override
from pipelines.session import Session
from pipelines.store import Store
from pipelines.table import Cell, Column, draw
from pipelines.terminal import COLOURS
from stages.base import Servable

WORDS = ("list", "logs", "stop", "retry")
FOLLOW = {"--follow", "-f"}
STYLES = {"SUCCEEDED": "done", "FAILED": "failed", "RUNNING": "running"}
SERVE_CONFIG = "serve.yaml"  # in the artifact of a deployment


def jobs(words: Sequence[str], overrides: list[str], composed: Any, session: Session) -> int:
    """`bloomline jobs list | logs JOB [--follow] | stop JOB | retry JOB`."""
    from cluster import job_list

    word, *names = words or ["list"]
    if word not in WORDS:
        raise BloomlineError(f"jobs: unknown word {word!r}; expected {', '.join(WORDS)}. {nearest(word, WORDS)}")
    follow = not FOLLOW.isdisjoint(names)
    names = [name for name in names if name not in FOLLOW]
    if follow and word != "logs":
        raise BloomlineError(f"jobs {word}: --follow is for `jobs logs`.")
    if len(names) != (word != "list"):
        raise BloomlineError(f"jobs {word} needs {'no name' if word == 'list' else 'the name of one job'}.")
    cluster = verbs.remote_cluster("jobs", outline.compose(overrides, composed).settings)
    if word == "list":
        return _list(cluster)
    if word == "logs":
        return job_list.logs(cluster, names[0], follow=follow)
    if word == "stop":
        return job_list.stop(cluster, names[0])
    job = job_list.to_retry(cluster, names[0])
    again = [*job.overrides, *overrides]
    _expect_pipeline(config.compose(again).graph.name, job.name, job.pipeline)
    return verbs.submit(again, None, session)


def _expect_pipeline(here: str, job: str, pipeline: str) -> None:
    """Raise BloomlineError if a job's command means another pipeline here, where another project is."""
    if pipeline and here != pipeline:
        raise BloomlineError(
            f"{job} ran the pipeline {pipeline}, and the same command runs {here} here. Call `bloomline jobs retry` in "
            "the directory of the job's project."
        )


def _list(cluster: RemoteCluster) -> int:
    from cluster import job_list

    found = job_list.jobs(cluster)
    if not found:
        print("The cluster knows no jobs.")
        return 0
    columns = [Column("job"), Column("state"), Column("user"), Column("pipeline", flexible=True)]
    columns += [Column("age", right=True), Column("took", right=True)]
    now = time.time()
    rows = [
        [
            Cell(clean(job.name)),
            Cell(job.state.lower(), COLOURS.get(STYLES.get(job.state, ""), "")),
            Cell(clean(job.user)),
            Cell(clean(job.pipeline)),
            Cell(duration(now - job.started) if job.started else ""),
            Cell(duration((job.ended or now) - job.started) if job.started else ""),
        ]
        for job in found
    ]
    draw(terminal.console(), columns, rows)
    return 0


def manifest(overrides: list[str], composed: Any, session: Session) -> int:
    """`bloomline manifest kind=RayJob`: print what KubeRay makes a cluster, a run or a service from."""
    from cluster.manifests import KINDS
    from cluster.manifests import manifest as render

    own, overrides = own_keys.split("manifest", overrides)
    if (kind := own.get("kind", "")) not in KINDS:
        meant = f" {nearest(kind, KINDS)}" if kind else ""
        raise BloomlineError(f"manifest needs one kind={'|'.join(KINDS)}.{meant}")
    composition = config.compose(overrides) if composed is None else config.check(composed)
    cluster = composition.settings.cluster
    if not isinstance(cluster, RemoteCluster):
        raise BloomlineError("manifest describes a new cluster: add cluster=remote, without an address.")
    if secret := next((one for one in overrides if shown_override(one) != one), None):
        key = secret.partition("=")[0]
        raise BloomlineError(f"{key} is a secret: name a Kubernetes secret in cluster.kubernetes.secrets instead.")
    ours = ("cluster=", "cluster.address=", "cluster.kubernetes.")
    whole = project.find(Path.cwd()).overrides(overrides)  # a project's pipeline, without its directory here
    passed = [one for one in whole if not one.lstrip("+").startswith((*ours, "hydra.searchpath="))]
    store = composition.settings.store
    if kind == "RayJob" and store.is_local and Path(cluster.kubernetes.volume_path) not in Path(store.root).parents:
        say(
            f"Note: store.root={store.root} is in a pod, and ends with it. Give a directory below "
            f"{cluster.kubernetes.volume_path} with cluster.kubernetes.volume_claim, or store=s3.",
            file=sys.stderr,
        )
    serve_config = _serve_config(overrides, session) if kind == "RayService" else None
    print(render(kind, cluster.kubernetes, passed, version("ray"), serve_config), end="")
    return 0


def _serve_config(overrides: list[str], session: Session) -> dict[str, Any]:
    """The Ray Serve config of the pipeline's deployment, which has to be in the store. Raises BloomlineError."""
    local = [override for override in overrides if not override.startswith("cluster")]
    prepared = verbs.prepare(local, None, session)
    store: Store = prepared.store
    made = [step for step in prepared.plan.steps.values() if issubclass(step.step.produces, Servable)]
    if not made:
        raise BloomlineError(f"Pipeline {prepared.plan.graph.name} has no step that makes something to serve.")
    # A deployment says how its model is to be served; the model alone does not.
    deployments = [step for step in made if not step.step.produces.is_model] or made
    record = next((step.record for step in deployments if step.state == "cached"), None)
    if record is None:
        raise BloomlineError(
            f"{deployments[0].step.name} is not in the store: run the pipeline first, then write its manifest."
        )
    if not store.config.is_local:
        raise BloomlineError("kind=RayService needs a store in a directory that every pod mounts, not an object store.")
    directory = Path(store.config.local_root) / record.location
    file = directory / SERVE_CONFIG
    if not file.is_file():
        raise BloomlineError(f"{directory} has no {SERVE_CONFIG}: only the artifact of a `deploy` step has one.")
    values: dict[str, Any] = yaml.safe_load(file.read_text())
    values["http_options"]["host"] = "0.0.0.0"  # the pod's own address, which only the cluster's network reaches
    for application in values["applications"]:
        application["args"]["arguments"]["directory"] = str(directory)
    return values
