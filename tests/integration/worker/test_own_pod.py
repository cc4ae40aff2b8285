"""A pod is told of in one request, to the API alone that its cluster's authority vouches for."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.authority import Authority
from tests.pod_api import NAMESPACE, TOKEN, PodAPI, make_account, serving
from worker.own_pod import BUSY, IDLE, OwnPod

NAME = "worker-cpu-7d9f-x2x"
NOWHERE = "https://localhost:9"
"""The port of `discard`, on which nothing listens."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def api(authority: Authority) -> Iterator[PodAPI]:
    with serving(authority.context("localhost")) as api:
        yield api


@pytest.fixture
def account(authority: Authority, tmp_path: Path) -> Path:
    return make_account(tmp_path / "account", authority.path)


@pytest.fixture
def pod(api: PodAPI, account: Path) -> OwnPod:
    return OwnPod(api.url, account, NAME, pause_s=0)


def test_request_is_a_merge_patch_of_this_pod(api: PodAPI, pod: OwnPod) -> None:
    pod.tell(is_busy=True)
    (asked,) = api.asked
    assert (asked.method, asked.path) == ("PATCH", f"/api/v1/namespaces/{NAMESPACE}/pods/{NAME}")
    assert asked.headers["Content-Type"] == "application/merge-patch+json"
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.body == {
        "metadata": {
            "annotations": {
                "controller.kubernetes.io/pod-deletion-cost": "1000",
                "karpenter.sh/do-not-disrupt": "true",
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            }
        }
    }


def test_idle_pod_takes_back_what_a_busy_one_said(api: PodAPI, pod: OwnPod) -> None:
    pod.tell(is_busy=False)
    assert api.annotations() == [
        {
            "controller.kubernetes.io/pod-deletion-cost": None,
            "karpenter.sh/do-not-disrupt": None,
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
        }
    ]


def test_only_a_change_is_told(api: PodAPI, pod: OwnPod) -> None:
    for is_busy in (False, False, True, True, False):
        pod.tell(is_busy=is_busy)
    assert api.annotations() == [IDLE, BUSY, IDLE]


def test_token_is_read_each_time(api: PodAPI, pod: OwnPod, account: Path) -> None:
    pod.tell(is_busy=True)
    (account / "token").write_text("the-next")
    pod.tell(is_busy=False)
    assert [one.headers["Authorization"] for one in api.asked] == [
        f"Bearer {TOKEN}",
        "Bearer the-next",
    ]


@pytest.mark.parametrize("status", [301, 403, 500])
def test_what_was_not_taken_is_told_again(api: PodAPI, pod: OwnPod, status: int) -> None:
    api.status = status
    with capture_logs() as logs:
        pod.tell(is_busy=True)
        pod.tell(is_busy=True)
        api.status = 200
        pod.tell(is_busy=True)
        pod.tell(is_busy=True)
    assert api.annotations() == [BUSY] * 3
    assert {one.path.rpartition("/")[2] for one in api.asked} == {NAME}
    assert [(line["event"], line["why"]) for line in logs] == [("pod_not_marked", status)]


def test_pod_in_doubt_is_told_what_it_was_told_before(api: PodAPI, pod: OwnPod) -> None:
    pod.tell(is_busy=False)
    api.status = 0  # it was taken, and the answer lost
    pod.tell(is_busy=True)
    api.status = 200
    pod.tell(is_busy=False)
    assert api.annotations() == [IDLE, BUSY, IDLE]


def test_each_trouble_is_logged_once(api: PodAPI, pod: OwnPod) -> None:
    with capture_logs() as logs:
        for status in (500, 200, 503):
            api.status = status
            pod.tell(is_busy=status != 503)
    assert [line["why"] for line in logs] == [500, 503]


def test_api_that_is_away_is_asked_again_after_a_pause(api: PodAPI, account: Path) -> None:
    pod = OwnPod(NOWHERE, account, NAME, pause_s=0.2)
    with capture_logs() as logs:
        pod.tell(is_busy=True)
        pod._url = OwnPod(api.url, account, NAME)._url
        pod.tell(is_busy=True)
        assert api.asked == []
        time.sleep(0.25)
        pod.tell(is_busy=True)
    assert api.annotations() == [BUSY]
    assert [line["why"] for line in logs] == ["ConnectionRefusedError"]


@pytest.mark.parametrize("shown", ["another authority", "another name"])
def test_server_that_is_not_vouched_for_is_sent_no_token(
    tmp_path: Path, authority: Authority, account: Path, shown: str
) -> None:
    another = Authority(tmp_path / "another")
    context = (
        another.context("localhost")
        if shown == "another authority"
        else authority.context("elsewhere")
    )
    with serving(context) as api, capture_logs() as logs:
        OwnPod(api.url, account, NAME).tell(is_busy=True)
    assert api.asked == []
    assert [line["why"] for line in logs] == ["SSLCertVerificationError"]


@pytest.mark.parametrize(
    ("file", "holds", "why"),
    [
        ("token", None, "FileNotFoundError"),
        ("token", "two\nlines", "ValueError"),
        ("token", "\N{SNOWMAN}", "UnicodeEncodeError"),
        ("ca.crt", "no certificate", "SSLError"),
        ("namespace", None, "FileNotFoundError"),
    ],
)
def test_broken_account_ends_nothing(
    api: PodAPI, pod: OwnPod, account: Path, file: str, holds: str | None, why: str
) -> None:
    (account / file).unlink()
    if holds is not None:
        (account / file).write_text(holds)
    with capture_logs() as logs:
        pod.tell(is_busy=True)
    assert api.asked == []
    assert [line["why"] for line in logs] == [why]
    assert "lines" not in str(logs)


def test_names_are_quoted(api: PodAPI, account: Path) -> None:
    (account / "namespace").write_text("a/../b")
    OwnPod(api.url, account, "c?d", pause_s=0).tell(is_busy=True)
    assert [one.path for one in api.asked] == ["/api/v1/namespaces/a%2F..%2Fb/pods/c%3Fd"]


def test_connection_that_is_closed_without_an_answer_is_a_failure(api: PodAPI, pod: OwnPod) -> None:
    api.status = 0
    with capture_logs() as logs:
        pod.tell(is_busy=True)
    assert [line["why"] for line in logs] == ["RemoteDisconnected"]
