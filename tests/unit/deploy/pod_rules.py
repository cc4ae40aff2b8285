"""Pods are closed, bounded, probed, and of a version."""

import re
from collections.abc import Iterator, Sequence

from tests.unit.deploy.access_rules import guarded
from tests.unit.deploy.rendering import LONG_LIVED, SINGLE, Manifest, Pod, pods

CLIENT = ("gliaforge/kubernetes", "client")
LONGEST_TOKEN_S = 3600
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI"}


def restricted(objects: Sequence[Manifest]) -> list[str]:
    """The pod security standard `restricted`, as the namespace enforces it (Kubernetes 1.37)."""
    return [complaint for pod in pods(objects) for complaint in _restricted(pod)]


def _restricted(pod: Pod) -> Iterator[str]:
    spec, own = pod.spec, pod.spec.get("securityContext", {})
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield f"{pod.name} shares a namespace of its node"
    if own.get("sysctls") or own.get("seLinuxOptions"):
        yield f"{pod.name} sets what the node decides"
    for volume in spec.get("volumes", ()):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"{pod.name} mounts {volume}"
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        for fault in _container_faults(own, container):
            yield f"{pod.name} {fault}"


def _container_faults(own: Manifest, container: Manifest) -> Iterator[str]:
    its = container.get("securityContext", {})
    if its.get("privileged") or its.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if its.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if its.get("runAsNonRoot", own.get("runAsNonRoot")) is not True:
        yield "may be root"
    if its.get("runAsUser", own.get("runAsUser")) in {None, 0}:
        yield "runs as no numbered user"
    profile = its.get("seccompProfile", own.get("seccompProfile", {}))
    if profile.get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if "procMount" in its or any("hostPort" in port for port in container.get("ports", ())):
        yield "reaches out of its container"


def confined(objects: Sequence[Manifest]) -> list[str]:
    """Beyond `restricted`: nothing to write to but bounded volumes, and no Kubernetes API.

    A worker that is labelled for it has a short-lived token, if a policy limits its account.
    """
    accounts = guarded(objects)
    return [complaint for pod in pods(objects) for complaint in _confined(pod, accounts)]


def _confined(pod: Pod, accounts: set[str]) -> Iterator[str]:
    if pod.container["securityContext"].get("readOnlyRootFilesystem") is not True:
        yield f"{pod.name} can write to its image"
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield f"{pod.name} has a token"
    is_client = CLIENT in pod.labels.items() and pod.spec["serviceAccountName"] in accounts
    for token in pod.tokens:
        if not (pod.name.startswith("worker-") and is_client):
            yield f"{pod.name} has a token that is not for it"
        if token.get("expirationSeconds", LONGEST_TOKEN_S + 1) > LONGEST_TOKEN_S:
            yield f"{pod.name} has a token for too long"
    if pod.spec.get("enableServiceLinks") is not False:
        yield f"{pod.name} is told of all Services in its environment"
    if "/tmp" not in {mount["mountPath"] for mount in pod.container["volumeMounts"]}:  # noqa: S108 - it must be a volume
        yield f"{pod.name} has no /tmp"
    for volume in pod.spec.get("volumes", ()):
        if "sizeLimit" not in volume.get("emptyDir", {"sizeLimit": ""}):
            yield f"{pod.name} may fill its node through {volume['name']}"


def limits(objects: Sequence[Manifest]) -> list[str]:
    """Each container asks for CPU and memory and has a limit of memory.

    Not of CPU: a limit would make it wait while the node idles. What a TrainingRuntime starts has
    its resources from the TrainJob.
    """
    complaints = []
    for pod in pods(objects):
        if pod.kind == "TrainingRuntime":
            continue
        resources = pod.container.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
            complaints.append(f"{pod.name} requests too little")
        if "memory" not in resources.get("limits", {}):
            complaints.append(f"{pod.name} has no limit of memory")
        if "scratch" in {volume["name"] for volume in pod.spec.get("volumes", ())}:
            needs = "ephemeral-storage" in resources.get("limits", {})
            if not needs and pod.name not in SINGLE:
                complaints.append(f"{pod.name} has no limit of storage")
    return complaints


def probes(objects: Sequence[Manifest]) -> list[str]:
    """What runs on is probed, and what is called through a Service says when it can be."""
    complaints = []
    for pod in pods(objects):
        if pod.kind not in LONG_LIVED:
            continue
        missing = {"startupProbe", "livenessProbe"} - pod.container.keys()
        if "ports" in pod.container:
            missing |= {"readinessProbe"} - pod.container.keys()
        complaints += [f"{pod.name} has no {probe}" for probe in sorted(missing)]
    return complaints


def images(objects: Sequence[Manifest]) -> list[str]:
    """Each image has a version of its own, so that a restart brings no other."""
    return [
        f"{pod.name} runs {pod.container['image']}"
        for pod in pods(objects)
        if not re.search(r":v?\d+\.\d+(\.\d+)?$|@sha256:[0-9a-f]{64}$", pod.container["image"])
    ]
