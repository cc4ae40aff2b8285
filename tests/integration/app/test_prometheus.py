"""A Prometheus reads a running API as in compose, and every query and alert can be evaluated."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # no stubs are installed

from app import generators, jobs, metrics, workers
from app.job_states import Kind, Status
from app.jobs import Claim
from app.parts import Parts
from app.settings import Settings
from app.tables import Job
from app.workers import Disk, Machine
from tests.integration.app.api.conftest import _serving
from tests.unit.deploy.observability import (
    FOLDER,
    PROMETHEUS,
    alerts,
    needs_prometheus,
    queries,
)

pytestmark = needs_prometheus
NewChain = Callable[..., dict[str, str]]
NewJob = Callable[..., str]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def get(self, path: str, **query: str) -> Any:
        """Return what its API answers."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, trust_env=False)
        found = answer.json()
        assert found["status"] == "success"
        return found["data"]

    def until(self, is_so: Callable[[], object], timeout_s: float = 60) -> None:
        """Wait for something."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            with suppress(httpx.TransportError, ValueError):  # it starts
                if is_so():
                    return
            assert time.monotonic() < deadline_s, "it did not come to that"
            time.sleep(0.1)


@pytest.fixture
def prometheus(
    parts: Parts, settings: Settings, tmp_path: Path, logging_kept: None
) -> Iterator[Prometheus]:
    """Run the API with its port for numbers, and a Prometheus that reads it every second."""
    port, own_port = free_port(), free_port()
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), "1s")
    scraped = {"job_name": "gliaforge", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    config["scrape_configs"] = [scraped]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(FOLDER / "rules.yml", tmp_path)
    assert PROMETHEUS is not None
    command = [
        *(PROMETHEUS, f"--config.file={tmp_path}/prometheus.yml"),
        *(f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own_port}"),
    ]
    with (
        _serving(settings.model_copy(update={"metrics_port": port})) as url,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path) as process,
    ):
        try:
            for path in ("/livez", "/v1/jobs", "/v1/jobs"):
                httpx.get(f"{url}{path}", trust_env=False)
            yield Prometheus(f"http://127.0.0.1:{own_port}")
        finally:
            process.terminate()


def _work(parts: Parts, tenant_id: str, new_chain: NewChain, new_job: NewJob) -> None:
    """Let there be something of everything: ended, running and waiting jobs, and a worker."""
    generator_id = new_chain(tenant_id)["generator_id"]
    with parts.database.transaction() as session:
        disk = Disk(50, 100)
        workers.sign(session, "a", ["gpu.train", "cpu.ingest"], 1, Machine("cuda", 1), disk)
    job_id = new_job(Kind.TRAIN)
    new_job(Kind.REPORT)
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, job_id, owner="test", lease_s=60)
        assert claimed is not None
        jobs.record(session, claimed, [], {"images_per_second": 9.5, "gpu_memory_bytes": 7})
        session.get_one(Job, job_id).resource_id = generator_id
    of = Claim(job_id, tenant_id, generator_id, 1, None, Kind.TRAIN, None)
    with parts.database.transaction() as session:
        generators.add_history(session, of, 9, 90, {"all/kid": 0.25})


def test_every_query_and_alert_is_evaluated_and_every_metric_is_there(
    prometheus: Prometheus,
    parts: Parts,
    tenant_id: str,
    new_chain: NewChain,
    new_job: NewJob,
) -> None:
    _work(parts, tenant_id, new_chain, new_job)
    kid = "gliaforge_training_kid"
    prometheus.until(lambda: prometheus.get("query", query=kid)["result"])
    prometheus.until(lambda: _evaluated(prometheus))

    names = set(prometheus.get("label/__name__/values"))
    wanted = {
        f"{one.name}_bucket" if one.type is metrics.Type.HISTOGRAM else one.name
        for one in metrics.METRICS
    }
    assert wanted - names == set()

    for query in (*queries(), *(alert["expr"] for alert in alerts())):
        prometheus.get("query", query=query)
    speed = prometheus.get("query", query="max(gliaforge_training_images_per_second)")
    assert [one["value"][1] for one in speed["result"]] == ["9.5"]
    asked = prometheus.get("query", query='gliaforge_http_requests_total{route="/v1/jobs"}')
    assert [(one["metric"]["status"], one["value"][1]) for one in asked["result"]] == [("401", "2")]
    ended = f'gliaforge_jobs_ended_total{{kind="train", status="{Status.SUCCEEDED}"}}'
    assert [one["value"][1] for one in prometheus.get("query", query=ended)["result"]] == ["1"]


def _evaluated(prometheus: Prometheus) -> bool:
    """Tell whether every rule was evaluated without an error."""
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(alerts())
    assert not [rule["lastError"] for rule in rules if rule.get("lastError")]
    return all(rule["health"] == "ok" for rule in rules)
