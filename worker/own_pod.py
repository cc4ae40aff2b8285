"""The pod that a worker runs in tells, in its annotations, whether the worker has a job.

They are read by whoever removes pods: a ReplicaSet that gets smaller, Karpenter, the cluster
autoscaler. https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost
"""

import json
import ssl
import time
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

import structlog

log = structlog.get_logger()
_COST = "controller.kubernetes.io/pod-deletion-cost"
_KARPENTER = "karpenter.sh/do-not-disrupt"
_AUTOSCALER = "cluster-autoscaler.kubernetes.io/safe-to-evict"
BUSY: dict[str, str | None] = {_COST: "1000", _KARPENTER: "true", _AUTOSCALER: "false"}
IDLE: dict[str, str | None] = {_COST: None, _KARPENTER: None, _AUTOSCALER: "true"}
"""The annotations of either; None removes one. Were nothing said, the cluster autoscaler would keep
the node of an idle pod too, for its emptyDirs."""
_TIMEOUT_S = 2.0
_PAUSE_S = 30.0
"""After a failure. A packet that is dropped holds the caller's loop until the timeout is over, and
a silent name server for as long as the resolver waits, as for the database's name too."""
_TAKEN = range(200, 300)


class OwnPod:
    """Marks one pod as busy or idle, once for each change.

    Each time a connection is opened, since a process that is forked would inherit it, and the
    token is read, which Kubernetes replaces before its hour is over.
    """

    def __init__(self, url: str, account: Path, name: str, pause_s: float = _PAUSE_S) -> None:
        """Say nothing yet: `url` is the API's https origin, `account` the folder of a token."""
        self._url = urlsplit(url)
        self._account = account
        self._name = name
        self._pause_s = pause_s
        self._told: bool | None = None
        self._resumes_s = 0.0
        self._has_warned = False

    def tell(self, *, is_busy: bool) -> None:
        """Say whether the worker has a job, if that was not taken already.

        Never raises. What fails is logged once until it works again, and tried again at a later
        call, after a pause.
        """
        if is_busy is self._told or time.monotonic() < self._resumes_s:
            return
        try:
            status = self._patch(BUSY if is_busy else IDLE)
        # A ValueError is of a token that is none, and would quote it.
        except (OSError, HTTPException, ValueError) as error:
            self._fail(type(error).__name__)
            return
        if status not in _TAKEN:
            self._fail(status)
            return
        self._told, self._has_warned = is_busy, False

    def _patch(self, annotations: dict[str, str | None]) -> int:
        """Return the status of the answer; a redirection is not followed."""
        context = ssl.create_default_context(cafile=self._account / "ca.crt")
        # Python 3.13 demands key identifiers (RFC 5280), which authorities of EKS do not have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        assert self._url.hostname is not None, "the settings demand an origin"
        connection = HTTPSConnection(
            self._url.hostname, self._url.port or 443, timeout=_TIMEOUT_S, context=context
        )
        namespace = (self._account / "namespace").read_text().strip()
        token = (self._account / "token").read_text().strip()
        with closing(connection):
            connection.request(
                "PATCH",
                f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(self._name, safe='')}",
                json.dumps({"metadata": {"annotations": annotations}}),
                {
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/merge-patch+json",
                    "Accept": "application/json",
                },
            )
            return connection.getresponse().status

    def _fail(self, why: int | str) -> None:
        self._told = None  # it may have been taken, and the answer lost
        self._resumes_s = time.monotonic() + self._pause_s
        if not self._has_warned:
            log.warning("pod_not_marked", why=why)
        self._has_warned = True
