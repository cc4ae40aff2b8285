"""The TrainJob and what it refers to fit their published schema, each other, and our command."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # no stubs are installed
from kubeflow_trainer_api.models import (
    IoK8sApiCoreV1PersistentVolumeClaim,
    IoK8sApiCoreV1Pod,
    TrainerV1alpha1TrainingRuntime,
    TrainerV1alpha1TrainJob,
)
from torch.distributed.run import get_args_parser

from models import cli
from models.config import PRESETS
from models.run_folder import TrainSpec

Manifest = dict[str, Any]
ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
FOLDER = KUBERNETES / "trainjob"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SCHEMAS = {
    "PersistentVolumeClaim": IoK8sApiCoreV1PersistentVolumeClaim,
    "Pod": IoK8sApiCoreV1Pod,
    "TrainJob": TrainerV1alpha1TrainJob,
    "TrainingRuntime": TrainerV1alpha1TrainingRuntime,
}


def read(path: Path) -> Manifest:
    found: Manifest = yaml.safe_load(path.read_text())
    return found


MANIFESTS = {
    path.stem: read(path) for path in FOLDER.glob("*.yaml") if path.stem != "kustomization"
}
TRAINER: Manifest = MANIFESTS["trainjob"]["spec"]["trainer"]
(REPLICATED,) = MANIFESTS["trainingruntime"]["spec"]["template"]["spec"]["replicatedJobs"]
PODS: dict[str, Manifest] = {
    "node": REPLICATED["template"]["spec"]["template"],
    "runs": MANIFESTS["pod"],
}
in_each_pod = pytest.mark.parametrize("name", sorted(PODS))


def container(name: str) -> Manifest:
    """Return the only container of a pod."""
    (only,) = PODS[name]["spec"]["containers"]
    found: Manifest = only
    return found


def command() -> list[str]:
    """Return what the controller starts: the command of the runtime, the arguments of the job."""
    return [*container("node")["command"], *TRAINER["args"]]


def demand_schema(manifest: Manifest) -> None:
    """Demand each field to be of the schema; what it does not know it drops without a word.

    Raises:
        ValueError: when a field is unknown, missing or of another type.
    """
    known = SCHEMAS[manifest["kind"]].from_dict(manifest)
    if known is None or known.to_dict() != manifest:
        raise ValueError(f"{manifest['kind']} has fields that are not in its schema")


# --- the schema


@pytest.mark.parametrize("name", sorted(MANIFESTS.keys() - {"networkpolicy"}))
def test_manifest_is_of_the_published_schema(name: str) -> None:
    demand_schema(MANIFESTS[name])
    assert MANIFESTS[name]["kind"].lower() == name


@pytest.mark.parametrize(
    ("name", "path", "old", "new"),
    [
        ("trainjob", "spec", "runtimeRef", "runtime"),
        ("trainjob", "spec/trainer", "numNodes", "numNode"),
        ("trainjob", "spec/trainer/resourcesPerNode", "limits", "limit"),
        ("trainingruntime", "spec", "mlPolicy", "mlpolicy"),
        ("trainingruntime", "spec/template/spec", "failurePolicy", "failure"),
        ("trainingruntime", "spec/template/spec/replicatedJobs/0", "name", "names"),
        (
            "trainingruntime",
            "spec/template/spec/replicatedJobs/0/template/spec/template/spec/containers/0",
            "volumeMounts",
            "mounts",
        ),
    ],
)
def test_misspelt_field_is_refused(name: str, path: str, old: str, new: str) -> None:
    manifest = json.loads(json.dumps(MANIFESTS[name]))
    part = manifest
    for key in path.split("/"):
        part = part[int(key)] if key.isdigit() else part[key]
    part[new] = part.pop(old)
    with pytest.raises(ValueError, match=r"not in its schema|validation error|Field required"):
        demand_schema(manifest)


def test_field_of_an_older_version_is_refused() -> None:
    manifest = json.loads(json.dumps(MANIFESTS["trainingruntime"]))
    manifest["spec"]["mlPolicy"]["torch"]["numProcPerNode"] = "auto"
    with pytest.raises(ValueError, match="not in its schema"):
        demand_schema(manifest)


def test_number_as_text_is_refused() -> None:
    manifest = json.loads(json.dumps(MANIFESTS["trainjob"]))
    manifest["spec"]["trainer"]["numNodes"] = "2"
    with pytest.raises(ValueError, match="numNodes"):
        demand_schema(manifest)


# --- what refers to what


def test_controller_finds_the_container_that_it_is_to_fill() -> None:
    # pkg/constants/constants.go and pkg/runtime/framework/plugins/jobset of kubeflow/trainer.
    label = "trainer.kubeflow.org/trainjob-ancestor-step"
    assert REPLICATED["template"]["metadata"]["labels"][label] == "trainer"
    assert REPLICATED["name"] == container("node")["name"] == "node"


def test_job_refers_to_the_runtime() -> None:
    reference, runtime = MANIFESTS["trainjob"]["spec"]["runtimeRef"], MANIFESTS["trainingruntime"]
    assert reference["kind"] == runtime["kind"]
    assert reference["name"] == runtime["metadata"]["name"]
    assert reference["apiGroup"] == runtime["apiVersion"].partition("/")[0]
    kustomization = read(FOLDER / "kustomization.yaml")
    assert MANIFESTS["trainjob"]["metadata"]["namespace"] == kustomization["namespace"]


def test_all_but_the_job_is_made_once() -> None:
    listed = read(FOLDER / "kustomization.yaml")["resources"]
    assert {f"{name}.yaml" for name in MANIFESTS} - set(listed) == {"trainjob.yaml"}


def test_nothing_starts_again_by_itself() -> None:
    spec = MANIFESTS["trainingruntime"]["spec"]["template"]["spec"]
    assert spec["failurePolicy"] == {"maxRestarts": 0}
    assert REPLICATED["template"]["spec"]["backoffLimit"] == 0
    assert PODS["node"]["spec"]["restartPolicy"] == "Never"


def test_node_has_a_process_for_each_gpu() -> None:
    resources = TRAINER["resourcesPerNode"]
    gpus = {resources[kind]["nvidia.com/gpu"] for kind in ("requests", "limits")}
    assert gpus == {TRAINER["numProcPerNode"]}
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "memory" in resources["limits"]


@pytest.mark.parametrize("preset", ["standard-128", "high-256"])
def test_processes_can_share_the_batch(preset: str) -> None:
    processes = TRAINER["numNodes"] * TRAINER["numProcPerNode"]
    assert PRESETS[preset].config.batch_size % processes == 0


def test_nodes_reach_each_other_and_nothing_else() -> None:
    spec = MANIFESTS["networkpolicy"]["spec"]
    labels = spec["podSelector"]["matchLabels"]
    assert labels.items() <= PODS["node"]["metadata"]["labels"].items()
    assert not labels.items() <= PODS["runs"]["metadata"]["labels"].items()
    (inward,), (outward,) = spec["ingress"], spec["egress"]
    assert inward["from"] == outward["to"] == [{"podSelector": {"matchLabels": labels}}]
    assert "ports" not in inward.keys() | outward.keys()


@in_each_pod
def test_pod_is_restricted(name: str) -> None:
    pod, only = PODS[name]["spec"], container(name)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    account = read(KUBERNETES / "base" / "serviceaccount.yaml")["metadata"]["name"]
    assert pod["serviceAccountName"] == account


@in_each_pod
def test_pod_is_of_this_version_and_mounts_the_runs(name: str) -> None:
    (image,) = read(FOLDER / "kustomization.yaml")["images"]
    assert image == {"name": container(name)["image"], "newTag": VERSION}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(name)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in PODS[name]["spec"]["volumes"]}
    claim = MANIFESTS["persistentvolumeclaim"]
    assert mounts.keys() == volumes.keys()
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (run_dir,) = TRAINER["args"]
    assert str(Path(run_dir).parent) == mounts["runs"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", ["trainjob", "overlays/example-trainjob"])
def test_kustomize_builds(folder: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    objects = {one["kind"]: one for one in yaml.safe_load_all(built.stdout)}
    assert len(objects) == len(MANIFESTS) - 1
    for kind in objects.keys() & SCHEMAS.keys():
        demand_schema(objects[kind])
    images = re.findall(r"^\s*image: (\S+)$", built.stdout, re.MULTILINE)
    assert len(images) == len(PODS)
    assert all(image.endswith(f"gliaforge-worker:{VERSION}") for image in images)


# --- what runs in it


def test_command_is_one_that_torchrun_and_we_read() -> None:
    program, *arguments = command()
    assert program == "torchrun"
    launched = get_args_parser().parse_args(arguments)
    assert (launched.module, launched.training_script) == (True, "models")
    ours = cli._parser().parse_args(launched.training_script_args)
    assert (ours.command, [str(ours.run_dir)]) == ("train", TRAINER["args"])


def test_kubernetes_waits_longer_than_torchrun() -> None:
    launched = get_args_parser().parse_args(command()[1:])
    assert launched.shutdown_timeout < PODS["node"]["spec"]["terminationGracePeriodSeconds"]


def test_page_shows_a_spec_of_a_preset() -> None:
    page = (ROOT / "deploy" / "README.md").read_text()
    (text,) = re.findall(r"^ *(\{\"config\".*?\})$", page, re.MULTILINE | re.DOTALL)
    spec = TrainSpec.model_validate_json(text)
    assert spec.config == PRESETS["standard-128"].config
    assert spec.device == "cuda"
    assert '"resume": null' in text
