"""Manifests against the schemas that KubeRay publishes, and the cluster launcher's YAML against Ray's."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.base import ClusterError
from cluster.config import Kubernetes, KubernetesPod
from cluster.import_path import ROOT
from cluster.manifests import manifest

SCHEMAS = json.loads((Path(__file__).parent / "schemas" / "kuberay.json").read_text())["schemas"]
SERVE = {"applications": [{"name": "a", "import_path": "cluster.serve:build"}]}
LARGE = Kubernetes(
    name="team", worker=KubernetesPod(cpus=8, gpus=2), secrets=("mlflow",), volume_claim="store", workers=4
)


def strict(schema: Any) -> Any:
    """The schema with unknown fields refused: Kubernetes would drop them without a word. Quantities may be texts."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema and schema["properties"]:
        made.setdefault("additionalProperties", False)
    return made


@pytest.mark.parametrize("config", [Kubernetes(), LARGE], ids=["default", "large"])
@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_a_manifest_has_the_schema_of_kuberay(kind: str, config: Kubernetes) -> None:
    values = yaml.safe_load(manifest(kind, config, ["pipeline=quickstart", "seed=a b"], "2.60.0", SERVE))
    assert (values["apiVersion"], values["kind"]) == ("ray.io/v1", kind)
    jsonschema.Draft7Validator(strict(SCHEMAS[kind])).validate(values)
    spec = values["spec"]
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    assert cluster["workerGroupSpecs"][0]["replicas"] == config.workers
    assert cluster["authOptions"] == {"mode": "token"}


def test_an_unknown_field_would_be_found() -> None:
    values = yaml.safe_load(manifest("RayJob", Kubernetes(), [], "2.60.0", None))
    values["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="imagee"):
        jsonschema.Draft7Validator(strict(SCHEMAS["RayJob"])).validate(values)


def test_a_job_runs_the_pipeline_and_a_service_the_deployment() -> None:
    job = yaml.safe_load(manifest("RayJob", LARGE, ["pipeline=quickstart", "seed=a b"], "2.60.0", None))["spec"]
    assert job["entrypoint"] == "bloomline run pipeline=quickstart 'seed=a b' cluster=remote cluster.address=auto"
    pod = job["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "mlflow"}}]
    service = yaml.safe_load(manifest("RayService", LARGE, [], "2.60.0", SERVE))["spec"]
    assert yaml.safe_load(service["serveConfigV2"]) == SERVE
    with pytest.raises(ClusterError, match="deploy"):
        manifest("RayService", LARGE, [], "2.60.0", None)
    with pytest.raises(ClusterError, match="RayCluster, RayJob, RayService"):
        manifest("Pod", LARGE, [], "2.60.0", None)


def test_the_cluster_launchers_file_has_rays_schema() -> None:
    values = yaml.safe_load((ROOT / "examples" / "cluster" / "launcher.yaml").read_text())
    validate_config(prepare_config(values))
    with pytest.raises(jsonschema.ValidationError, match="head_commands"):
        validate_config(prepare_config({**values, "head_commands": []}))


def test_the_image_installs_extras_and_a_python_that_the_project_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "examples" / "cluster" / "Dockerfile").read_text().splitlines()
    base = next(line for line in lines if line.startswith("FROM "))
    installed = next(line for line in lines if line.startswith("RUN pip install"))
    python = base.removeprefix("FROM python:").partition("-")[0]
    least = project["requires-python"].removeprefix(">=")
    assert tuple(map(int, python.split("."))) >= tuple(map(int, least.split(".")))
    extras = installed.partition("[")[2].partition("]")[0].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
