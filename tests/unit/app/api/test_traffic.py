"""Requests are counted by route and status, and by no word that a client chose."""

import asyncio

from starlette.types import Message, Receive, Scope, Send

from app.api.middleware import RequestContext
from app.api.traffic import Traffic


class _Route:
    path = "/v1/jobs/{job_id}"


def _send(traffic: Traffic, method: str, *, fails: bool = False, route: object = _Route) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert traffic.registry.get_sample_value("gliaforge_http_requests_in_flight") == 1
        if route is not None:
            scope["route"] = route
        if fails:
            raise RuntimeError
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_message: Message) -> None:
        pass

    scope = {"type": "http", "method": method, "headers": [], "scheme": "http", "path": "/patient"}
    try:
        asyncio.run(RequestContext(app, traffic)(scope, receive, send))
    except RuntimeError:
        assert fails


def _count(traffic: Traffic, method: str, route: str, status: str) -> float | None:
    labels = {"method": method, "route": route, "status": status}
    return traffic.registry.get_sample_value("gliaforge_http_requests_total", labels)


def test_request_is_counted_by_the_template_of_its_route() -> None:
    traffic = Traffic()
    for _ in range(2):
        _send(traffic, "GET")
    assert _count(traffic, "GET", "/v1/jobs/{job_id}", "404") == 2
    labels = {"method": "GET", "route": "/v1/jobs/{job_id}"}
    name = "gliaforge_http_request_duration_seconds_count"
    assert traffic.registry.get_sample_value(name, labels) == 2
    assert traffic.registry.get_sample_value("gliaforge_http_requests_in_flight") == 0


def test_request_that_raises_is_a_500_and_no_longer_in_flight() -> None:
    traffic = Traffic()
    _send(traffic, "GET", fails=True)
    assert _count(traffic, "GET", "/v1/jobs/{job_id}", "500") == 1
    assert traffic.registry.get_sample_value("gliaforge_http_requests_in_flight") == 0


def test_path_and_method_of_a_client_are_no_labels() -> None:
    traffic = Traffic()
    _send(traffic, "MUELLER", route=None)
    assert _count(traffic, "other", "unmatched", "404") == 1
    shown = [sample for one in traffic.registry.collect() for sample in one.samples]
    assert not [one for one in shown if "MUELLER" in str(one) or "patient" in str(one)]


def test_applications_do_not_share_their_counts() -> None:
    first, second = Traffic(), Traffic()
    _send(first, "GET")
    assert _count(second, "GET", "/v1/jobs/{job_id}", "404") is None
