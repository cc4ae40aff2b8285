"""A mistake in what Kustomize renders is noticed, by the rule that it breaks."""

import shutil
from typing import Any

import pytest

from tests.unit.deploy.rendering import Manifest, find, objects_of, of_kind
from tests.unit.deploy.rules import RULES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("kubectl") is None, reason="kubectl, which holds Kustomize, is not installed"
    ),
]
GONE = object()
POD = "spec template spec"
BOX = f"{POD} containers 0"
OWN = f"{BOX} securityContext"
PATH = "spec rules 0 http paths 0"
TRIGGER = "spec triggers 0 metadata"
ALERT = "spec groups 0 rules 0"
EGRESS = "spec egress 0"
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gliaforge"}}
PASSWORD = {"name": "POSTGRES_PASSWORD", "value": "x"}
SSH = {"protocol": "TCP", "port": 22}
CLUSTER_ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "gliaforge"},
}
POLICY = "ValidatingAdmissionPolicy/gliaforge-busy-pods"
IS_WORKER = (
    'request.userInfo.username.startsWith("system:serviceaccount:" + request.namespace + ":")'
    ' && request.userInfo.username.endsWith("gliaforge-worker")'
)
BINDING = "ValidatingAdmissionPolicyBinding/gliaforge-busy-pods"
POLICED = "spec matchConstraints"
TOKEN = f"{POD} volumes 0 projected sources 0 serviceAccountToken"
MOUNTED = {"name": "tmp", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
LABEL = "spec template metadata labels gliaforge/kubernetes"
ANYWHERE = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
"""Rule, object, where in it, what is there by mistake; in place of an object: it is gone."""
MISTAKES: list[tuple[str, str, str, object]] = [
    ("schema", "Deployment/api", f"{BOX} enviroment", []),
    ("schema", "Deployment/scheduler", "spec replicas", "one"),
    ("schema", "Deployment/api", "spec selector", GONE),
    ("schema", "HorizontalPodAutoscaler/api", "apiVersion", "autoscaling/v2beta2"),
    ("schema", "Service/api", "kind", "Servise"),
    ("schema", "ScaledObject/worker-cpu", "spec coolDownPeriod", 1),
    ("schema", "ScaledObject/worker-cpu", f"{TRIGGER} targetQueryValue", 2),
    ("schema", "ScaledObject/worker-cpu", f"{TRIGGER} query", GONE),
    ("schema", "TriggerAuthentication/jobs", "spec secretTargetRef 0 parameter", "url"),
    ("schema", "Ingress/api", f"{PATH} backend", GONE),
    ("schema", "Role/busy-pods", "rules 0 verb", []),
    ("schema", "Role/busy-pods", "rules 0 verbs", GONE),
    ("schema", "RoleBinding/busy-pods", "roleRef kind", GONE),
    ("schema", POLICY, "spec validations 0 expresion", "true"),
    ("schema", POLICY, "spec matchConditions 0 name", GONE),
    ("schema", BINDING, "spec policy", "gliaforge-busy-pods"),
    ("schema", BINDING, "apiVersion", "admissionregistration.k8s.io/v1beta1"),
    ("quantities", "Deployment/api", f"{BOX} resources limits memory", "1GiB"),
    ("quantities", "Deployment/api", f"{POD} volumes 0 emptyDir sizeLimit", "64MB"),
    ("restricted", "Deployment/api", f"{OWN} privileged", True),
    ("restricted", "Deployment/api", f"{OWN} allowPrivilegeEscalation", GONE),
    ("restricted", "Deployment/api", f"{OWN} capabilities add", ["SYS_PTRACE"]),
    ("restricted", "Deployment/worker-cpu", f"{POD} securityContext runAsUser", 0),
    ("restricted", "Deployment/worker-cpu", f"{POD} securityContext runAsNonRoot", GONE),
    ("restricted", "Job/migrate", f"{POD} securityContext seccompProfile", GONE),
    ("restricted", "Deployment/api", f"{POD} hostNetwork", True),
    ("restricted", "Deployment/api", f"{POD} securityContext sysctls", [{"name": "x"}]),
    ("restricted", "Deployment/api", f"{POD} volumes 0", {"name": "tmp", "hostPath": {}}),
    ("restricted", "Deployment/api", f"{BOX} ports 0 hostPort", 80),
    ("confined", "StatefulSet/postgres", f"{OWN} readOnlyRootFilesystem", False),
    ("confined", "Deployment/api", f"{POD} automountServiceAccountToken", GONE),
    ("confined", "StatefulSet/seaweedfs", f"{POD} enableServiceLinks", GONE),
    ("confined", "Deployment/worker-cpu", f"{POD} volumes 1 emptyDir", {}),
    ("confined", "Deployment/worker-train", f"{BOX} volumeMounts 2", GONE),
    ("confined", "Deployment/worker-cpu", f"{TOKEN} expirationSeconds", 86400),
    ("confined", "Deployment/worker-cpu", f"{TOKEN} expirationSeconds", GONE),
    ("confined", "Deployment/worker-cpu", LABEL, GONE),
    ("confined", "Deployment/worker-cpu", f"{POD} serviceAccountName", "gliaforge"),
    ("confined", "Deployment/worker-cpu", f"{POD} automountServiceAccountToken", True),
    ("confined", "Deployment/scheduler", f"{POD} volumes 0", MOUNTED),
    ("confined", POLICY, "", GONE),
    ("confined", BINDING, "", GONE),
    ("limits", "Deployment/api", f"{BOX} resources requests cpu", GONE),
    ("limits", "StatefulSet/valkey", f"{BOX} resources limits", GONE),
    ("limits", "Deployment/worker-train", f"{BOX} resources limits ephemeral-storage", GONE),
    ("probes", "Deployment/worker-train", f"{BOX} livenessProbe", GONE),
    ("probes", "Deployment/scheduler", f"{BOX} startupProbe", GONE),
    ("probes", "Deployment/api", f"{BOX} readinessProbe", GONE),
    ("images", "Deployment/api", f"{BOX} image", "gliaforge-api:latest"),
    ("images", "StatefulSet/valkey", f"{BOX} image", "registry:5000/valkey/valkey"),
    ("secrets", "Service/api", "", SECRET),
    ("secrets", "ConfigMap/gliaforge", "data GLIAFORGE_DATA_KEY", "x"),
    ("secrets", "ConfigMap/gliaforge", "data PROXY", "http://me:pass@proxy"),
    ("secrets", "StatefulSet/postgres", f"{BOX} env 0", PASSWORD),
    ("secrets", "Deployment/api", f"{BOX} envFrom 1 secretRef name", "api"),
    ("secrets", "Ingress/api", "spec tls 0 secretName", "api"),
    ("selectors", "Service/api", "spec selector", {"app.kubernetes.io/name": "app"}),
    ("selectors", "Service/api", "spec selector", {"gliaforge/broker": "client"}),
    ("references", "Deployment/api", f"{BOX} envFrom 0 configMapRef name", "gliaforge"),
    ("references", "ServiceAccount/gliaforge", "", GONE),
    ("references", "ServiceAccount/gliaforge-worker", "", GONE),
    ("references", "Role/busy-pods", "", GONE),
    ("references", "Role/busy-pods", "metadata namespace", GONE),
    ("references", "RoleBinding/busy-pods", "subjects 0 name", "worker"),
    ("references", POLICY, "", GONE),
    ("references", BINDING, "spec policyName", "busy-pods"),
    (
        "references",
        "Deployment/worker-cpu",
        f"{POD} volumes 0 projected sources 1 configMap name",
        "ca",
    ),
    ("references", "PriorityClass/gliaforge-batch", "", GONE),
    ("references", "Deployment/worker-cpu", f"{POD} priorityClassName", GONE),
    ("references", "ScaledObject/worker-cpu", "spec scaleTargetRef name", "worker"),
    ("references", "TriggerAuthentication/jobs", "", GONE),
    ("references", "Deployment/api", f"{BOX} ports 0 name", "web"),
    ("references", "Ingress/api", f"{PATH} pathType", "prefix"),
    ("references", "Ingress/api", f"{PATH} backend service name", "web"),
    ("references", "Ingress/api", f"{PATH} backend service port name", "web"),
    ("references", "StatefulSet/valkey", f"{BOX} volumeMounts 0", GONE),
    ("references", "StatefulSet/valkey", "metadata name", "postgres"),
    ("references", "Service/api", "metadata namespace", GONE),
    ("scaling", "Deployment/api", "spec replicas", 2),
    ("scaling", "ScaledObject/worker-cpu", "spec scaleTargetRef name", "api"),
    ("scaling", "Deployment/scheduler", "spec replicas", 2),
    ("scaling", "Deployment/scheduler", "spec strategy", GONE),
    ("budgets", "PodDisruptionBudget/api", "", GONE),
    ("budgets", "PodDisruptionBudget/api", "spec minAvailable", 2),
    ("budgets", "PodDisruptionBudget/api", "spec maxUnavailable", 1),
    ("budgets", "PodDisruptionBudget/api", "spec selector matchLabels", {}),
    ("budgets", "Deployment/api", f"{POD} topologySpreadConstraints", GONE),
    ("schema", "PodMonitor/gliaforge", "spec podMetricsEndpoints 0 scrapeTimeOut", "10s"),
    ("schema", "PodMonitor/gliaforge", "spec podMetricsEndpoints 0 interval", "30 s"),
    ("schema", "PodMonitor/gliaforge", "spec podMetricsEndpoint", []),
    ("schema", "PrometheusRule/gliaforge", f"{ALERT} sumary", "x"),
    ("schema", "PrometheusRule/gliaforge", f"{ALERT} for", "three minutes"),
    ("schema", "PrometheusRule/gliaforge", "spec groups 0 name", GONE),
    ("monitoring", "PodMonitor/gliaforge", "", GONE),
    ("monitoring", "PodMonitor/gliaforge", "spec podMetricsEndpoints 0 port", "numbers"),
    ("monitoring", "PodMonitor/gliaforge", "spec selector matchLabels", {"app": "api"}),
    ("monitoring", "Deployment/api", f"{BOX} ports 1", GONE),
    ("monitoring", "NetworkPolicy/metrics", "", GONE),
    ("monitoring", "NetworkPolicy/metrics", "spec ingress 0 ports 0 port", "http"),
    ("monitoring", "Service/api", "spec ports 0 targetPort", "metrics"),
    ("monitoring", "PrometheusRule/gliaforge", f"{ALERT} labels severity", "bad"),
    ("monitoring", "PrometheusRule/gliaforge", f"{ALERT} annotations runbook_url", GONE),
    ("network", "NetworkPolicy/metrics", "spec ingress 0 from", [{"namespaceSelector": {}}]),
    ("network", "NetworkPolicy/deny-all", "", GONE),
    ("network", "NetworkPolicy/dns", "", GONE),
    ("network", "NetworkPolicy/storage", f"{EGRESS} to", GONE),
    ("network", "NetworkPolicy/storage", f"{EGRESS} to", ANYWHERE),
    ("network", "NetworkPolicy/storage", f"{EGRESS} ports 0", SSH),
    ("network", "NetworkPolicy/database", f"{EGRESS} ports", GONE),
    ("network", "Deployment/api", "spec template metadata labels gliaforge/broker", GONE),
    ("network", "NetworkPolicy/kubernetes", "", GONE),
    ("network", "NetworkPolicy/kubernetes", f"{EGRESS} to", ANYWHERE),
    ("network", "NetworkPolicy/kubernetes", f"{EGRESS} ports 1 port", 10250),
    ("network", "NetworkPolicy/kubernetes", "spec podSelector", {}),
    ("network", "Deployment/worker-cpu", LABEL, GONE),
    ("network", "Deployment/scheduler", LABEL, "client"),
    ("rights", "Role/busy-pods", "rules 0 verbs", ["patch", "update"]),
    ("rights", "Role/busy-pods", "rules 0 resources", ["pods", "pods/exec"]),
    ("rights", "Role/busy-pods", "rules 0 apiGroups", ["*"]),
    ("rights", "Service/api", "", CLUSTER_ROLE),
    ("rights", "RoleBinding/busy-pods", "roleRef kind", "ClusterRole"),
    ("rights", "RoleBinding/busy-pods", "subjects 0 name", "gliaforge"),
    ("rights", "RoleBinding/busy-pods", "subjects 0 namespace", "default"),
    ("rights", "RoleBinding/busy-pods", "subjects 0 kind", "Group"),
    ("rights", POLICY, "", GONE),
    ("rights", POLICY, "spec failurePolicy", "Ignore"),
    ("rights", POLICY, "spec validations", []),
    ("rights", POLICY, "spec matchConditions 0 expression", "false"),
    ("rights", POLICY, "spec matchConditions 0 expression", f"{IS_WORKER} && false"),
    ("rights", POLICY, "spec matchConditions", []),
    ("rights", POLICY, f"{POLICED} resourceRules 0 operations", ["CREATE"]),
    ("rights", POLICY, f"{POLICED} resourceRules 0 resources", ["pods/status"]),
    ("rights", POLICY, f"{POLICED} resourceRules 0 resourceNames", ["api"]),
    ("rights", POLICY, f"{POLICED} objectSelector", {"matchLabels": {"a": "b"}}),
    ("rights", BINDING, "", GONE),
    ("rights", BINDING, "spec policyName", "busy-pods"),
    ("rights", BINDING, "spec validationActions", ["Audit"]),
    ("rights", BINDING, "spec matchResources", {"objectSelector": {"matchLabels": {"a": "b"}}}),
    ("network", "NetworkPolicy/api-clients", "", GONE),
    ("network", "NetworkPolicy/api-clients", "spec ingress 0 from", GONE),
    ("network", "NetworkPolicy/api-clients", "spec ingress 0 from", [{"namespaceSelector": {}}]),
]


def make(objects: list[Manifest], name: str, where: str, what: object) -> None:
    """Make a mistake in the object that is called `Kind/name`, or in a ConfigMap begins so."""
    kind, _, own = name.partition("/")
    if kind == "ConfigMap":
        own = next(
            one["metadata"]["name"]
            for one in of_kind(objects, kind)
            if one["metadata"]["name"].startswith(own)
        )
    part = find(objects, kind, own)
    if not where:
        objects.remove(part)
        objects += [] if what is GONE else [what]  # type: ignore[list-item]  # the table's
        return
    inner: Any = part
    *path, last = (int(key) if key.isdigit() else key for key in where.split(" "))
    for key in path:
        inner = inner[key]
    if what is GONE:
        del inner[last]
    else:
        inner[last] = what


@pytest.mark.parametrize(
    ("rule", "name", "where", "what"),
    [pytest.param(*one, id=f"{one[0]}: {one[1]} {one[2]}") for one in MISTAKES],
)
def test_mistake_is_noticed(rule: str, name: str, where: str, what: object) -> None:
    objects = objects_of(
        "base",
        "components/busy-pods",
        "components/data-services",
        "components/ingress",
        "components/observability",
        "components/scale-from-zero",
    )
    assert RULES[rule](objects) == []
    make(objects, name, where, what)
    assert RULES[rule](objects) != []


def test_each_rule_is_tried() -> None:
    assert {rule for rule, *_ in MISTAKES} == RULES.keys()


@pytest.mark.parametrize("field", ["mlPolicy", "template"])
def test_mistake_in_the_runtime_is_noticed(field: str) -> None:
    objects = objects_of("overlays/example", "overlays/example-trainjob")
    (runtime,) = of_kind(objects, "TrainingRuntime")
    runtime["spec"][f"{field}s"] = runtime["spec"][field]
    assert RULES["schema"](objects)
