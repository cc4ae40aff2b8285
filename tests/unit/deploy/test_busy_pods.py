"""The policy lets a worker say whether it has a job, and do nothing else with its right to pods.

Its expressions are evaluated here by another implementation of CEL than the API server's.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import cel
import pytest

from app.settings import KUBERNETES_ACCOUNT
from tests.unit.deploy.rendering import Manifest, Pod, find, objects_of, pods
from worker.own_pod import BUSY, IDLE

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which holds Kustomize, is not installed"
)
NAME = "worker-cpu-7d9f-x2x"
USER = "system:serviceaccount:gliaforge:gliaforge-worker"
POD_NAME = "authentication.kubernetes.io/pod-name"
TOLD = "karpenter.sh/do-not-disrupt"
BOUND = {POD_NAME: [NAME], "authentication.kubernetes.io/pod-uid": ["1-2-3"]}
POD: Manifest = {
    "metadata": {
        "name": NAME,
        "namespace": "gliaforge",
        "labels": {"app.kubernetes.io/name": "worker-cpu"},
        "annotations": {"kubectl.kubernetes.io/restartedAt": "now"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "worker-cpu-7d9f", "uid": "4-5-6"}],
    },
    "spec": {"containers": [{"name": "worker", "image": "gliaforge-worker:0.1.0"}]},
}
LABELS: dict[str, str] = POD["metadata"]["labels"]
ERRORS = (KeyError, RuntimeError, TypeError)
"""Of an expression that cannot be evaluated; one that cannot be read is a ValueError."""
Change = Callable[[Manifest], object]


def policy() -> Manifest:
    objects = objects_of("base", "components/busy-pods")
    found: Manifest = find(objects, "ValidatingAdmissionPolicy", "gliaforge-busy-pods")["spec"]
    return found


def verdicts(request: Manifest, before: Manifest | None, after: Manifest) -> list[bool]:
    """Return what each validation says; one that fails denies, as failurePolicy demands."""
    variables: dict[str, Any] = {}
    known = {"request": request, "object": after, "oldObject": before, "variables": variables}
    spec = policy()
    for variable in spec["variables"]:
        with suppress(*ERRORS):  # what refers to it then fails as well
            variables[variable["name"]] = cel.evaluate(variable["expression"], known)
    return [_is_true(validation["expression"], known) for validation in spec["validations"]]


def _is_true(expression: str, known: Manifest) -> bool:
    try:
        return cel.evaluate(expression, known) is True
    except ERRORS:
        return False


def asked_by(extra: dict[str, list[str]] | None, operation: str = "UPDATE") -> Manifest:
    """Return a request of somebody of whom Kubernetes knows `extra`."""
    user = {"username": USER, "groups": ["system:serviceaccounts"]}
    told = {} if extra is None else {"extra": extra}
    return {"namespace": "gliaforge", "operation": operation, "userInfo": user | told}


def merged(pod: Manifest, annotations: dict[str, str | None]) -> Manifest:
    """Return a pod after a merge patch (RFC 7386); the API server keeps no empty map."""
    made = deepcopy(pod)
    all_of_them = made["metadata"].pop("annotations", {}) | annotations
    left = {name: value for name, value in all_of_them.items() if value is not None}
    if left:
        made["metadata"]["annotations"] = left
    return made


def annotated(annotations: dict[str, str | None] | None) -> Manifest:
    """Return the pod with these annotations, and without any other."""
    pod = deepcopy(POD)
    del pod["metadata"]["annotations"]
    return merged(pod, annotations or {})


@pytest.mark.parametrize("told", [BUSY, IDLE], ids=["busy", "idle"])
@pytest.mark.parametrize("before", [POD, annotated(None), annotated(BUSY), annotated(IDLE)])
def test_what_a_worker_says_is_let_through(before: Manifest, told: dict[str, str | None]) -> None:
    assert all(verdicts(asked_by(BOUND), before, merged(before, told)))


def test_last_annotation_may_go() -> None:
    assert all(verdicts(asked_by(BOUND), annotated({TOLD: "true"}), annotated(None)))


@pytest.mark.parametrize(
    "extra",
    [
        None,
        {},
        {"authentication.kubernetes.io/credential-id": ["JTI=1"]},
        {POD_NAME: []},
        {POD_NAME: ["worker-train-0"]},
        {POD_NAME: [NAME, "worker-train-0"]},
    ],
)
def test_pod_of_another_is_left_alone(extra: dict[str, list[str]] | None) -> None:
    said = verdicts(asked_by(extra), POD, merged(POD, BUSY))
    assert said == [False, True, True, True, True, True]


def _annotate(name: str, value: str | None) -> Change:
    return lambda pod: pod.update(merged(pod, {name: value}))


CHANGES: dict[str, tuple[int, Change]] = {
    "another image": (1, lambda pod: pod["spec"]["containers"][0].update(image="theirs")),
    "a deadline": (1, lambda pod: pod["spec"].update(activeDeadlineSeconds=1)),
    "another label": (2, lambda pod: pod["metadata"]["labels"].update({"gliaforge/api": "x"})),
    "a changed label": (
        2,
        lambda pod: pod["metadata"]["labels"].update(dict.fromkeys(LABELS, "x")),
    ),
    "no labels": (2, lambda pod: pod["metadata"].pop("labels")),
    "no owner": (3, lambda pod: pod["metadata"].pop("ownerReferences")),
    "another owner": (3, lambda pod: pod["metadata"]["ownerReferences"][0].update(uid="7-8-9")),
    "a finalizer": (4, lambda pod: pod["metadata"].update(finalizers=["a/b"])),
    "a foreign annotation": (5, _annotate("a", "b")),
    "a foreign annotation that is changed": (
        5,
        _annotate("kubectl.kubernetes.io/restartedAt", "x"),
    ),
    "a foreign annotation that is gone": (5, _annotate("kubectl.kubernetes.io/restartedAt", None)),
    "no annotations": (5, lambda pod: pod["metadata"].pop("annotations")),
}
"""Which validation alone denies what."""


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("told", [{}, BUSY], ids=["alone", "beside what may be said"])
def test_nothing_else_is_changed(what: str, told: dict[str, str | None]) -> None:
    validation, change = CHANGES[what]
    after = merged(POD, told)
    change(after)
    said = verdicts(asked_by(BOUND), POD, after)
    assert [index for index, is_right in enumerate(said) if not is_right] == [validation]


def test_what_was_not_there_is_not_added() -> None:
    bare = {"metadata": {"name": NAME}, "spec": POD["spec"]}
    assert all(verdicts(asked_by(BOUND), bare, merged(bare, BUSY)))
    for field, index in (("labels", 2), ("ownerReferences", 3)):
        after = merged(bare, BUSY)
        after["metadata"][field] = POD["metadata"][field]
        said = verdicts(asked_by(BOUND), bare, after)
        assert [i for i, is_right in enumerate(said) if not is_right] == [index]
    assert not all(verdicts(asked_by(BOUND), bare, merged(bare, {"a": "b"})))


def test_nothing_is_created() -> None:
    own, *_ = verdicts(asked_by(BOUND, "CREATE"), None, POD)
    assert not own


@pytest.mark.parametrize(
    ("user", "namespace", "is_judged"),
    [
        (USER, "gliaforge", True),
        ("system:serviceaccount:elsewhere:gliaforge-worker", "elsewhere", True),
        ("system:serviceaccount:gliaforge:team-gliaforge-worker", "gliaforge", True),
        ("system:serviceaccount:elsewhere:gliaforge-worker", "gliaforge", False),
        ("system:serviceaccount:gliaforge:gliaforge", "gliaforge", False),
        ("system:node:a", "gliaforge", False),
        ("system:serviceaccount:kube-system:replicaset-controller", "gliaforge", False),
    ],
)
def test_workers_are_judged_and_nobody_else(user: str, namespace: str, *, is_judged: bool) -> None:
    (condition,) = policy()["matchConditions"]
    request = {"namespace": namespace, "userInfo": {"username": user}}
    assert cel.evaluate(condition["expression"], {"request": request}) is is_judged


def _changed() -> list[tuple[Pod, Pod]]:
    before, after = objects_of("base"), objects_of("base", "components/busy-pods")
    both = zip(pods(before), pods(after), strict=True)
    return [(old, new) for old, new in both if old != new]


def test_workers_alone_have_a_token_and_know_their_name() -> None:
    changed = _changed()
    assert {new.name for _, new in changed} == {"worker-cpu", "worker-generate", "worker-train"}
    for old, new in changed:
        assert old.tokens == []
        assert len(new.tokens) == 1
        (told,) = [one for one in new.container["env"] if one["name"] == "GLIAFORGE_POD_NAME"]
        assert told["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert all(one in new.container["env"] for one in old.container.get("env", ()))


def test_account_is_mounted_where_the_worker_reads_it() -> None:
    for _, new in _changed():
        (volume,) = [one for one in new.spec["volumes"] if "projected" in one]
        (mount,) = [one for one in new.container["volumeMounts"] if one["name"] == volume["name"]]
        assert (Path(mount["mountPath"]), mount["readOnly"]) == (KUBERNETES_ACCOUNT, True)
        sources = volume["projected"]["sources"]
        held = {source["serviceAccountToken"]["path"] for source in sources[:1]}
        held |= {item["path"] for s in sources[1:] for part in s.values() for item in part["items"]}
        assert held == {"token", "ca.crt", "namespace"}
