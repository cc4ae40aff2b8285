"""Numbers are read from a port that is there, by nobody else, and each alert says what to do."""

from collections.abc import Iterator, Sequence

from tests.unit.deploy.rendering import Manifest, of_kind, pods, selected

PORT = "metrics"
SEVERITIES = {"critical", "warning"}
SAID = {"summary", "description", "runbook_url"}


def monitoring(objects: Sequence[Manifest]) -> list[str]:
    """A port for numbers is read by one PodMonitor, let in by label, and led to by no Service."""
    monitored: list[str] = []
    complaints = []
    for one in of_kind(objects, "PodMonitor"):
        name, spec = one["metadata"]["name"], one["spec"]
        found = selected(objects, spec["selector"]["matchLabels"])
        monitored += [pod.name for pod in found]
        if not found:
            complaints.append(f"the PodMonitor {name} reads of nobody")
        for pod in found:
            declared = {port["name"] for port in pod.container.get("ports", ())}
            wanted = {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]}
            if not wanted <= declared:
                complaints.append(f"the PodMonitor {name} reads of no port of {pod.name}")
    for pod in pods(objects):
        ports = {port["name"] for port in pod.container.get("ports", ())}
        if (PORT in ports) is not (monitored.count(pod.name) == 1):
            complaints.append(f"{pod.name} has numbers that nobody reads, or two do")
        if PORT in ports and not list(_ways_in(objects, pod.labels)):
            complaints.append(f"nobody may read the numbers of {pod.name}")
    complaints += [
        f"the Service {one['metadata']['name']} leads to numbers"
        for one in of_kind(objects, "Service")
        if PORT in {port["targetPort"] for port in one["spec"]["ports"]}
    ]
    return complaints + list(_silent_alerts(objects))


def _ways_in(objects: Sequence[Manifest], labels: dict[str, str]) -> Iterator[Manifest]:
    """Yield the namespaces that may call the port, by their labels."""
    for one in of_kind(objects, "NetworkPolicy"):
        applied = one["spec"]["podSelector"].get("matchLabels", {})
        for rule in one["spec"].get("ingress", ()) if applied.items() <= labels.items() else ():
            if PORT in {port["port"] for port in rule.get("ports", ())}:
                yield from (peer for peer in rule.get("from", ()) if "namespaceSelector" in peer)


def _silent_alerts(objects: Sequence[Manifest]) -> Iterator[str]:
    for one in of_kind(objects, "PrometheusRule"):
        for rule in (rule for group in one["spec"]["groups"] for rule in group["rules"]):
            if rule["labels"].get("severity") not in SEVERITIES:
                yield f"the alert {rule['alert']} does not say how bad it is"
            if rule["annotations"].keys() != SAID:
                yield f"the alert {rule['alert']} does not say what to do"
