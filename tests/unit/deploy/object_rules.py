"""Objects mean each other, keep no secrets, and say once how many pods there are."""

import re
from collections.abc import Iterator, Sequence

from tests.unit.deploy.rendering import (
    LONG_LIVED,
    SINGLE,
    Manifest,
    of_kind,
    pods,
    selected,
    walk,
)

CLUSTER_WIDE = {"Namespace", "PriorityClass"}
MISPLACED = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
"""Cluster-wide too, but until its pull request 6056 Kustomize gives them a namespace, which the API
server drops."""
GIVEN = {"kube-root-ca.crt"}
"""ConfigMaps that Kubernetes puts into each namespace."""
SECRETS = {"gliaforge", "gliaforge-data-services", "gliaforge-scaling", "gliaforge-tls"}
"""Those that deploy/README.md tells how to make."""
GPU = {"worker-train"}
"""Deployments that are better packed than spread: a node without a training can go."""


def secrets(objects: Sequence[Manifest]) -> list[str]:
    """No value of a secret is written down; each is named, and of a Secret that is told of."""
    complaints = [f"Secret {one['metadata']['name']}" for one in of_kind(objects, "Secret")]
    for one in of_kind(objects, "ConfigMap"):
        for key, value in one.get("data", {}).items():
            if re.search(r"_KEY$|PASSWORD|SECRET|TOKEN|DATABASE_URL|BROKER_URL", key):
                complaints.append(f"the setting {key} is a secret")
            if re.search(r"\w+://[^/\s]*:[^/\s]+@", value):
                complaints.append(f"the setting {key} holds a password")
    for pod in pods(objects):
        for variable in pod.container.get("env", ()):
            name = variable["name"]
            if re.search(r"_KEY$|PASSWORD|_AUTH$|TOKEN|_URL$", name) and "value" in variable:
                complaints.append(f"{pod.name} is told {name}")
    named = {part["name"] for one in objects for key, part in walk(one) if _names_secret(key)}
    named |= {
        entry["name"]
        for one in of_kind(objects, "TriggerAuthentication")
        for entry in one["spec"]["secretTargetRef"]
    }
    named |= {t["secretName"] for one in of_kind(objects, "Ingress") for t in one["spec"]["tls"]}
    return complaints + [f"nobody makes the secret {name}" for name in sorted(named - SECRETS)]


def _names_secret(key: str) -> bool:
    return key in {"secretRef", "secretKeyRef"}


def selectors(objects: Sequence[Manifest]) -> list[str]:
    """A workload and a Service mean the pods of one workload, and no others."""
    complaints = []
    for one in of_kind(objects, *LONG_LIVED, "Service"):
        spec, name = one["spec"], one["metadata"]["name"]
        labels = spec["selector"] if one["kind"] == "Service" else spec["selector"]["matchLabels"]
        if [pod.name for pod in selected(objects, labels)] != [name]:
            complaints.append(f"{one['kind']} {name} selects other pods than its own")
    return complaints


def references(objects: Sequence[Manifest]) -> list[str]:
    """What is named is there."""
    have = {(one["kind"], one["metadata"]["name"]) for one in objects}
    wanted: list[tuple[str, str]] = []
    complaints = []
    if len(have) < len(objects):
        complaints.append("two objects have one name")
    complaints += [
        f"{one['kind']} {one['metadata']['name']} is in the wrong place"
        for one in objects
        if ("namespace" in one["metadata"]) is (one["kind"] in CLUSTER_WIDE)
        and one["kind"] not in MISPLACED
    ]
    for pod in pods(objects):
        wanted.append(("ServiceAccount", pod.spec["serviceAccountName"]))
        if "priorityClassName" in pod.spec:
            wanted.append(("PriorityClass", pod.spec["priorityClassName"]))
        elif pod.kind in {*LONG_LIVED, "Job"}:
            complaints.append(f"{pod.name} has no priority")
        sources = pod.container.get("envFrom", ())
        wanted += [("ConfigMap", s["configMapRef"]["name"]) for s in sources if "configMapRef" in s]
        volumes = pod.spec.get("volumes", ())
        wanted += [("ConfigMap", v["configMap"]["name"]) for v in volumes if "configMap" in v]
        wanted += [
            ("ConfigMap", source["configMap"]["name"])
            for volume in volumes
            for source in volume.get("projected", {}).get("sources", ())
            if "configMap" in source and source["configMap"]["name"] not in GIVEN
        ]
        wanted += [
            ("PersistentVolumeClaim", v["persistentVolumeClaim"]["claimName"])
            for v in volumes
            if "persistentVolumeClaim" in v
        ]
    for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        wanted.append(("Deployment", one["spec"]["scaleTargetRef"]["name"]))
        for trigger in one["spec"].get("triggers", ()):
            wanted.append(("TriggerAuthentication", trigger["authenticationRef"]["name"]))
    wanted += [("Service", one["spec"]["serviceName"]) for one in of_kind(objects, "StatefulSet")]
    wanted += [("Service", service["name"]) for service, _ in _backends(objects)]
    wanted += _granted(objects)
    complaints += [
        f"there is no {kind} {name}" for kind, name in wanted if (kind, name) not in have
    ]
    return complaints + list(_lost_ports(objects)) + list(_lost_mounts(objects))


def _granted(objects: Sequence[Manifest]) -> Iterator[tuple[str, str]]:
    """Yield what rights need: of whom they are, what they are, what limits them."""
    for one in of_kind(objects, "RoleBinding"):
        yield one["roleRef"]["kind"], one["roleRef"]["name"]
        yield from ((subject["kind"], subject["name"]) for subject in one["subjects"])
    for one in of_kind(objects, "ValidatingAdmissionPolicyBinding"):
        yield "ValidatingAdmissionPolicy", one["spec"]["policyName"]


def _backends(objects: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield the Service that an Ingress leads to, with the path."""
    for one in of_kind(objects, "Ingress"):
        for rule in one["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                yield path["backend"]["service"], path


def _lost_ports(objects: Sequence[Manifest]) -> Iterator[str]:
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Service")}
    for service, path in _backends(objects):
        if path["pathType"] not in {"Prefix", "Exact"}:
            yield f"the path type {path['pathType']} means nothing"
        ports = [port["name"] for port in services.get(service["name"], {"ports": ()})["ports"]]
        if service["port"]["name"] not in ports:
            yield f"an Ingress leads to no port of {service['name']}"
    for name, spec in services.items():
        for pod in selected(objects, spec["selector"]):
            declared = {port["name"] for port in pod.container.get("ports", ())}
            if not {port["targetPort"] for port in spec["ports"]} <= declared:
                yield f"the Service {name} leads to no port of {pod.name}"


def _lost_mounts(objects: Sequence[Manifest]) -> Iterator[str]:
    claims = {
        one["metadata"]["name"]: {
            t["metadata"]["name"] for t in one["spec"]["volumeClaimTemplates"]
        }
        for one in of_kind(objects, "StatefulSet")
    }
    for pod in pods(objects):
        mounted = sorted(mount["name"] for mount in pod.container["volumeMounts"])
        there = [volume["name"] for volume in pod.spec.get("volumes", ())]
        if mounted != sorted([*there, *claims.get(pod.name, ())]):
            yield f"{pod.name} mounts other volumes than it has"


def scaling(objects: Sequence[Manifest]) -> list[str]:
    """One says how many there are; and the scheduler is one."""
    scalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    targets = [one["spec"]["scaleTargetRef"]["name"] for one in scalers]
    complaints = [f"{name} is scaled twice" for name in targets if targets.count(name) > 1]
    for one in of_kind(objects, "Deployment"):
        name, spec = one["metadata"]["name"], one["spec"]
        if ("replicas" in spec) is (name in targets):
            complaints.append(f"nobody or everybody says how many {name} there are")
        if name in SINGLE and (spec.get("replicas"), spec.get("strategy")) != (
            1,
            {"type": "Recreate"},
        ):
            complaints.append(f"there may be two of {name}")
    return complaints


def budgets(objects: Sequence[Manifest]) -> list[str]:
    """What may be several is guarded by one budget that lets a drain go on, and is spread out."""
    complaints = []
    guarded: list[str] = []
    for one in of_kind(objects, "PodDisruptionBudget"):
        spec = one["spec"]
        guarded += [pod.name for pod in selected(objects, spec["selector"]["matchLabels"])]
        if (spec.get("maxUnavailable"), spec.get("minAvailable")) not in {(1, None), (None, 1)}:
            complaints.append(f"the budget {one['metadata']['name']} is odd")
    deployments = {one["metadata"]["name"] for one in of_kind(objects, "Deployment")}
    complaints += [
        f"no one budget is for {n}" for n in deployments - SINGLE if guarded.count(n) != 1
    ]
    complaints += [f"the budget of {n} would block a drain" for n in {*guarded} - deployments]
    for pod in pods(objects):
        if pod.kind == "Deployment" and pod.name not in SINGLE | GPU:
            spread = pod.spec.get("topologySpreadConstraints", ())
            mine = [
                s for s in spread if s["labelSelector"]["matchLabels"].items() <= pod.labels.items()
            ]
            if not mine:
                complaints.append(f"{pod.name} is not spread")
    return complaints
