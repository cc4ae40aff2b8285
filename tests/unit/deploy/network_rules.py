"""Pods reach what they need, and nothing else reaches them."""

from collections.abc import Iterator, Sequence

from tests.unit.deploy.rendering import Manifest, Pod, of_kind, pods

PORTS = {
    "dns": {("UDP", 53), ("TCP", 53)},
    "database": {("TCP", 5432)},
    "broker": {("TCP", 6379), ("TCP", 6380)},
    "storage": {("TCP", 443), ("TCP", 8333)},
    "traces": {("TCP", 4318)},
    "kubernetes": {("TCP", 443), ("TCP", 6443)},
}


def network(objects: Sequence[Manifest]) -> list[str]:
    """Each pod is closed both ways, and reaches what its process talks to and nothing else."""
    complaints = []
    for pod in pods(objects):
        applied = [
            one["spec"]
            for one in of_kind(objects, "NetworkPolicy")
            if _labels(one["spec"]["podSelector"]).items() <= pod.labels.items()
        ]
        complaints += [
            f"{pod.name} is open to all {way}"
            for way in ("Ingress", "Egress")
            if not any(way in spec["policyTypes"] for spec in applied)
        ]
        outward = [rule for spec in applied for rule in spec.get("egress", ())]
        inward = [rule for spec in applied for rule in spec.get("ingress", ())]
        roles = _roles(pod, is_traced=_is_traced(objects))
        complaints += [f"{pod.name}: {fault}" for fault in _faults(pod, roles, inward, outward)]
    return complaints


def _faults(
    pod: Pod, roles: set[str], inward: list[Manifest], outward: list[Manifest]
) -> Iterator[str]:
    if any(not rule.get("to") for rule in outward) or any(not rule.get("from") for rule in inward):
        yield "open to everybody"
    ways = [
        peer
        for rule in (*inward, *outward)
        for peer in (*rule.get("to", ()), *rule.get("from", ()))
    ]
    blocks = {peer["ipBlock"]["cidr"] for peer in ways if "ipBlock" in peer}
    if blocks - {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}:
        yield f"open to {sorted(blocks)}"
    if any(peer in ({"namespaceSelector": {}}, {"podSelector": {}}) for peer in ways):
        yield "open to every pod"
    ports = {(port["protocol"], port["port"]) for rule in outward for port in rule.get("ports", ())}
    wanted = set(PORTS["dns"]).union(*(PORTS[role] for role in roles))
    if ports != wanted:
        yield f"reaches {sorted(ports)} instead of {sorted(wanted)}"
    if bool(inward) is not ("ports" in pod.container or pod.kind == "TrainingRuntime"):
        yield "called though it has no port, or not callable though it has"
    opened = {port["port"] for rule in inward for port in rule.get("ports", ())}
    for port in pod.container.get("ports", ()):
        if not opened & {port["name"], port["containerPort"]}:
            yield f"its port {port['name']} is open to nobody"


def _is_traced(objects: Sequence[Manifest]) -> bool:
    """Tell whether the settings name a collector of traces."""
    return any("GLIAFORGE_TRACES_ENDPOINT" in one["data"] for one in of_kind(objects, "ConfigMap"))


def _roles(pod: Pod, *, is_traced: bool) -> set[str]:
    """Return what the process of a pod talks to, by the secrets that it is told."""
    roles = {"kubernetes"} if pod.tokens else set()
    if {"secretRef": {"name": "gliaforge"}} in pod.container.get("envFrom", ()):
        return roles | {"database", "broker", "storage", *(("traces",) if is_traced else ())}
    told = {variable["name"] for variable in pod.container.get("env", ())}
    return roles | ({"database"} if "GLIAFORGE_DATABASE_URL" in told else set())


def _labels(selector: Manifest) -> Manifest:
    found: Manifest = selector.get("matchLabels", {})
    return found
