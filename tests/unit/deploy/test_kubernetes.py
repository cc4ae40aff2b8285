"""Everything that Kustomize renders keeps the rules, and is what the page says of it."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # no stubs are installed

from app.api.event_stream import LONGEST_LIFE_S
from tests.unit.deploy.rendering import KUBERNETES, find, objects_of, of_kind, pods, selected
from tests.unit.deploy.rules import RULES

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which holds Kustomize, is not installed"
)
COMPOSITIONS = [
    ("base",),
    ("overlays/example",),
    ("overlays/example-development",),
    ("overlays/example-autoscaled",),
    ("overlays/example-spot",),
    ("overlays/example", "overlays/example-trainjob"),
    ("base", "components/busy-pods"),
    ("base", "components/busy-pods", "components/cpu-training"),
    ("base", "components/cpu-training", "components/busy-pods"),
    ("base", "components/cpu-training"),
    ("base", "components/data-services"),
    ("base", "components/ingress"),
    ("base", "components/observability"),
    ("base", "components/scale-from-zero"),
    ("base", "components/spot"),
    ("base", "components/traces"),
    ("overlays/example-spot", "components/busy-pods"),
    ("overlays/example-spot", "components/traces"),
    ("overlays/example-development", "components/traces"),
]
NOT_OURS = {"trainer"}
"""In the address of Kubeflow Trainer's page."""
PAGE = (KUBERNETES.parent / "README.md").read_text()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("parts", COMPOSITIONS, ids=" + ".join)
def test_rule_is_kept(parts: tuple[str, ...], rule: str) -> None:
    assert RULES[rule](objects_of(*parts)) == []


@pytest.mark.parametrize("folder", ["overlays", "components"])
def test_page_names_what_there_is(folder: str) -> None:
    there = {path.name for path in (KUBERNETES / folder).iterdir()}
    assert set(re.findall(rf"\b{folder}/([a-z-]+)", PAGE)) - NOT_OURS == there
    rendered = {Path(part).name for parts in COMPOSITIONS for part in parts if folder in part}
    assert rendered == there


def test_overlays_are_short() -> None:
    for path in (KUBERNETES / "overlays").rglob("*"):
        assert path.is_dir() or len(path.read_text().splitlines()) <= 15


def test_each_file_holds_one_object_or_one_patch() -> None:
    for path in KUBERNETES.rglob("*.yaml"):
        assert len(list(yaml.safe_load_all(path.read_text()))) == 1


def test_each_file_is_listed() -> None:
    for path in KUBERNETES.rglob("*.yaml"):
        if path.name not in {"kustomization.yaml", "trainjob.yaml"}:
            assert path.name in (path.parent / "kustomization.yaml").read_text(), path


def test_development_needs_no_gpu_and_reaches_its_own_servers_alone() -> None:
    objects = objects_of("overlays/example-development")
    assert "nvidia.com/gpu" not in str(find(objects, "Deployment", "worker-train"))
    policies = [find(objects, "NetworkPolicy", name) for name in ("database", "broker", "storage")]
    assert "ipBlock" not in str(policies)


def test_data_services_are_started_as_in_compose() -> None:
    compose = yaml.safe_load((KUBERNETES.parents[1] / "docker-compose.yml").read_text())["services"]
    objects = objects_of("base", "components/data-services")
    for name in ("postgres", "valkey", "seaweedfs"):
        stateful = find(objects, "StatefulSet", name)["spec"]["template"]["spec"]["containers"][0]
        assert stateful["image"] == compose[name]["image"]
    (script,) = [one["data"] for one in of_kind(objects, "ConfigMap") if "start.sh" in one["data"]]
    assert script["start.sh"] == (KUBERNETES.parent / "seaweedfs" / "start.sh").read_text()
    valkey = find(objects, "StatefulSet", "valkey")["spec"]["template"]["spec"]["containers"][0]
    (settings,) = compose["valkey"]["command"]
    assert valkey["args"] == [settings.replace("$$", "$")]


def test_secrets_of_development_fit_each_other_and_the_page(tmp_path: Path) -> None:
    script = KUBERNETES.parent / "make-secrets.sh"
    subprocess.run(["sh", script, tmp_path / "s"], check=True, capture_output=True)
    files = {path.name: path.read_text() for path in (tmp_path / "s").iterdir()}
    ours = dict(line.split("=", 1) for line in files["gliaforge.secret"].splitlines())
    its = dict(line.split("=", 1) for line in files["gliaforge-data-services.secret"].splitlines())
    assert set(re.findall(r"`(GLIAFORGE_(?:DATABASE_URL|BROKER_URL|\w+_KEY))`", PAGE)) == set(ours)
    assert f":{its['POSTGRES_PASSWORD']}@postgres:5432/" in ours["GLIAFORGE_DATABASE_URL"]
    assert f":{its['VALKEY_PASSWORD']}@valkey:6379/" in ours["GLIAFORGE_BROKER_URL"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "s").iterdir()} == {0o600}
    subprocess.run(["sh", script, tmp_path / "s"], check=True, capture_output=True)
    assert (tmp_path / "s" / "gliaforge.secret").read_text() == files["gliaforge.secret"]


def test_proxy_waits_longer_than_a_stream_lasts() -> None:
    objects = objects_of("base", "components/ingress")
    annotations = find(objects, "Ingress", "api")["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/proxy-"
    assert int(annotations[f"{prefix}read-timeout"]) > LONGEST_LIFE_S
    assert annotations[f"{prefix}body-size"] == "0"
    assert annotations[f"{prefix}buffering"] == annotations[f"{prefix}request-buffering"] == "off"


def test_spot_moves_what_can_be_repeated_and_nothing_else() -> None:
    before, after = objects_of("overlays/example-autoscaled"), objects_of("overlays/example-spot")
    moved = [new.name for old, new in zip(pods(before), pods(after), strict=True) if old != new]
    assert sorted(moved) == ["worker-cpu", "worker-train"]
    tolerated = {
        pod.name: {toleration["key"] for toleration in pod.spec.get("tolerations", ())}
        for pod in pods(after)
    }
    spot = {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"}
    assert tolerated["worker-cpu"] == spot
    assert tolerated["worker-train"] == spot | {"nvidia.com/gpu"}


def test_alerts_and_dashboard_are_those_of_compose() -> None:
    objects = objects_of("base", "components/observability")
    observability = KUBERNETES.parent / "observability"
    (rule,) = of_kind(objects, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((observability / "rules.yml").read_text())
    dashboard = find(objects, "ConfigMap", "gliaforge-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    (shown,) = dashboard["data"].values()
    assert shown == (observability / "dashboard.json").read_text()


def test_numbers_are_told_where_they_are_read() -> None:
    objects = objects_of("base", "components/observability")
    (settings,) = [
        one["data"] for one in of_kind(objects, "ConfigMap") if "GLIAFORGE_SCRATCH" in one["data"]
    ]
    (port,) = [
        port["containerPort"]
        for pod in pods(objects)
        for port in pod.container.get("ports", ())
        if port["name"] == "metrics"
    ]
    assert settings["GLIAFORGE_METRICS_PORT"] == str(port)
    assert "GLIAFORGE_METRICS_PORT" not in str(objects_of("base"))


def test_trainer_is_not_moved_to_save_a_node() -> None:
    objects = objects_of("base")
    annotations = find(objects, "Deployment", "worker-train")["spec"]["template"]["metadata"]
    assert annotations["annotations"] == {
        "karpenter.sh/do-not-disrupt": "true",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    }


def test_who_waits_for_nobody_takes_nobodys_place() -> None:
    objects = objects_of("base")
    batch = find(objects, "PriorityClass", "gliaforge-batch")
    assert batch["preemptionPolicy"] == "Never"
    assert batch["value"] < find(objects, "PriorityClass", "gliaforge-interactive")["value"]


def test_collector_is_reached_where_it_was_chosen_and_nowhere_else() -> None:
    traced, plain = objects_of("base", "components/traces"), objects_of("base")
    (policy,) = [one for one in of_kind(traced, "NetworkPolicy") if one not in plain]
    ways = policy["spec"]["egress"]
    assert [way["to"] for way in ways] == [
        [{"namespaceSelector": {"matchLabels": {"gliaforge/traces": "collector"}}}]
    ]
    reached = {pod.name for pod in selected(traced, policy["spec"]["podSelector"]["matchLabels"])}
    assert reached == {"api", "scheduler", "worker-cpu", "worker-generate", "worker-train"}
    data = [one["data"] for one in of_kind(traced, "ConfigMap")]
    assert any("GLIAFORGE_TRACES_ENDPOINT" in one for one in data)
    assert not any("TRACES" in name for one in of_kind(plain, "ConfigMap") for name in one["data"])
