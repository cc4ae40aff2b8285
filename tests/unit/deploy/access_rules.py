"""Nobody has a right in Kubernetes but workers: what a policy leaves of that to patch pods."""

import re
from collections.abc import Sequence

from tests.unit.deploy.rendering import Manifest, of_kind

RIGHT = {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}
USER = r"request\.userInfo\.username"
IS_ACCOUNT = re.compile(
    rf'{USER}\.startsWith\("system:serviceaccount:" \+ request\.namespace \+ ":"\)'
    rf' && {USER}\.endsWith\("([\w-]+)"\)'
)


def guarded(objects: Sequence[Manifest]) -> set[str]:
    """Return the service accounts whose every change of a pod has to pass a policy."""
    enforced = [
        one["spec"]["policyName"]
        for one in of_kind(objects, "ValidatingAdmissionPolicyBinding")
        if one["spec"].keys() == {"policyName", "validationActions"}  # and so everywhere
        and "Deny" in one["spec"]["validationActions"]
    ]
    ends: list[str] = []
    for one in of_kind(objects, "ValidatingAdmissionPolicy"):
        spec = one["spec"]
        if one["metadata"]["name"] in enforced and _sees_pods(spec) and spec["validations"]:
            named = [IS_ACCOUNT.fullmatch(o["expression"]) for o in spec["matchConditions"]]
            ends += [found[1] for found in named if found]
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    return {name for name in accounts if name.endswith(tuple(ends))}


def _sees_pods(spec: Manifest) -> bool:
    """Tell whether a policy sees every pod that somebody writes, and fails closed."""
    rules = [
        rule
        for rule in spec["matchConstraints"].get("resourceRules", ())
        if rule.keys() == {"apiGroups", "apiVersions", "operations", "resources"}
        and "" in rule["apiGroups"]
        and "v1" in rule["apiVersions"]
        and "pods" in rule["resources"]
        and {"CREATE", "UPDATE"} <= set(rule["operations"])
    ]
    is_narrowed = spec["matchConstraints"].keys() != {"resourceRules"}
    is_strict = spec["failurePolicy"] == "Fail" and len(spec["matchConditions"]) == 1
    return bool(rules) and is_strict and not is_narrowed


def rights(objects: Sequence[Manifest]) -> list[str]:
    """A role grants the one right, to accounts of whose use of it a policy is the judge."""
    complaints = [
        f"{one['kind']} {one['metadata']['name']} grants something everywhere"
        for one in of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    ]
    complaints += [
        f"the role {one['metadata']['name']} grants {rule}"
        for one in of_kind(objects, "Role")
        for rule in one["rules"]
        if rule != RIGHT
    ]
    known = guarded(objects)
    for one in of_kind(objects, "RoleBinding"):
        name, here = one["metadata"]["name"], one["metadata"].get("namespace")
        if one["roleRef"]["kind"] != "Role":
            complaints.append(f"{name} binds a role that is not here")
        for subject in one["subjects"]:
            if (subject["kind"], subject.get("namespace")) != ("ServiceAccount", here):
                complaints.append(f"{name} binds others than our accounts")
            if subject["name"] not in known:
                complaints.append(f"no policy limits what {subject['name']} does to pods")
    return complaints
