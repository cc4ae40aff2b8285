"""What Kustomize makes of the folders below deploy/kubernetes, and the pods in it."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]  # no stubs are installed

Manifest = dict[str, Any]
KUBERNETES = Path(__file__).parents[3] / "deploy" / "kubernetes"
LONG_LIVED = {"Deployment", "StatefulSet"}
WORKLOADS = LONG_LIVED | {"Job"}
SINGLE = {"scheduler"}
"""Deployments that are never two, and so cannot be guarded without blocking every drain."""


class Pod(NamedTuple):
    """What a workload says of its pods."""

    kind: str
    name: str
    labels: dict[str, str]
    spec: Manifest

    @property
    def container(self) -> Manifest:
        """Return the only container."""
        (only,) = self.spec["containers"]
        found: Manifest = only
        return found

    @property
    def tokens(self) -> list[Manifest]:
        """Return the tokens for the Kubernetes API that are mounted into it."""
        sources = [
            s
            for v in self.spec.get("volumes", ())
            for s in v.get("projected", {}).get("sources", ())
        ]
        return [
            source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source
        ]


@lru_cache(maxsize=32)
def rendered(*parts: str) -> str:
    """Return the YAML of folders beside each other, and of components upon them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.relpath(KUBERNETES / part, Path(folder).resolve()) for part in parts]
        components = [path for path in paths if "/components/" in path]
        made = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "gliaforge",
            "resources": [path for path in paths if path not in components],
            "components": components,
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(made))
        built = subprocess.run(
            ["kubectl", "kustomize", folder], check=False, capture_output=True, text=True
        )
    if built.returncode:
        raise ValueError(f"{' '.join(parts)}: {built.stderr}")
    return built.stdout


def objects_of(*parts: str) -> list[Manifest]:
    """Return the objects of folders and components, fresh copies each time."""
    return list(yaml.safe_load_all(rendered(*parts)))


def find(objects: Sequence[Manifest], kind: str, name: str) -> Manifest:
    """Return the only object of that kind and name."""
    (found,) = (one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def of_kind(objects: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    """Return the objects of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def pods(objects: Sequence[Manifest]) -> Iterator[Pod]:
    """Yield the pods of all workloads."""
    for one in objects:
        kind, name = one["kind"], one["metadata"]["name"]
        if kind in WORKLOADS:
            template = one["spec"]["template"]
            yield Pod(kind, name, template["metadata"]["labels"], template["spec"])
        elif kind == "Pod":
            yield Pod(kind, name, one["metadata"]["labels"], one["spec"])
        elif kind == "TrainingRuntime":
            for job in one["spec"]["template"]["spec"]["replicatedJobs"]:
                template = job["template"]["spec"]["template"]
                yield Pod(kind, name, template["metadata"]["labels"], template["spec"])


def selected(objects: Sequence[Manifest], labels: Manifest) -> list[Pod]:
    """Return the pods that carry all of `labels`."""
    return [pod for pod in pods(objects) if labels.items() <= pod.labels.items()]


def walk(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield each key with its value, at any depth."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield key, value
            yield from walk(value)
    elif isinstance(part, list):
        for value in part:
            yield from walk(value)
