"""A compose stack of the project's own file, and the means to use, break and audit it."""

import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from app import job_states

ROOT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", "docker")
AUDIT = ROOT / "tests" / "faults" / "audit_of_jobs.py"
WORKERS = ("worker-cpu", "worker-generate", "worker-train-cpu")
SERVICES = ("api", *WORKERS, "scheduler", "postgres", "valkey", "seaweedfs")
TINY = {
    "image_size": 64,
    "total_images": 64,
    "snapshot_images": 32,
    "batch_size": 8,
    "latent_size": 16,
    "generator_channels": 16,
    "discriminator_channels": 8,
}
LONG = TINY | {"total_images": 6_000, "snapshot_images": 400}
"""Half a minute or more, and a checkpoint every two seconds."""
WAIT_S = 420.0
_LISTS = ("datasets", "generators", "sample-batches", "reports")
_BELOW = {
    "datasets": ("files", "certificate", "contact-sheet.png"),
    "generators": ("history", "checkpoints", "progress.png", "export"),
    "sample-batches": ("images", "preview.png", "archive"),
    "reports": ("html", "plots/intensity.png"),
}


class Stack:
    """The services of one compose project, in a folder with what a checkout has of it."""

    def __init__(self, folder: Path, project: str) -> None:
        """Take the project in `folder`; nothing is started yet."""
        self.folder = folder
        self.project = project
        self.key = ""

    def run(self, *words: str | Path, given: str | None = None, is_fine: bool = True) -> str:
        """Run a command in the folder and return what it wrote; `is_fine` is what it must be."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.folder,
            env={**os.environ, "COMPOSE_PROJECT_NAME": self.project, "DOCKER": DOCKER},
            input=given or "",
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        told = f"{done.stdout}\n{done.stderr}"
        assert (done.returncode == 0) is is_fine, f"{words[:4]}: {done.returncode}\n{told[-4000:]}"
        return done.stdout if is_fine else told

    def compose(self, *words: str, given: str | None = None, is_fine: bool = True) -> str:
        """Run docker compose."""
        return self.run(DOCKER, "compose", *words, given=given, is_fine=is_fine)

    def up(self, *words: str) -> None:
        """Start what is not running, and wait for its health."""
        self.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "240", *words)

    def inspect(self, service: str, template: str) -> str:
        """Return what the engine says of a service's container."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        assert container, f"{service} has no container"
        return self.run(DOCKER, "inspect", "--format", template, container).strip()

    def kill(self, service: str) -> None:
        """End a service's main process from outside, as the kernel does when memory runs out.

        `docker kill` would not do: the engine takes that for the operator's wish, and does not
        start such a container again.
        """
        os.kill(int(self.inspect(service, "{{.State.Pid}}")), 9)

    def until(self, condition: Callable[[], object], timeout_s: float = WAIT_S) -> Any:
        """Wait until something comes about, and return it."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < deadline_s, self.compose("ps", "--all")
            time.sleep(0.5)
        return found

    def is_healthy(self) -> bool:
        """Tell whether every service that lives long runs in health."""
        state = "{{.State.Status}} {{.State.Health.Status}}"
        return all(self.inspect(one, state) == "running healthy" for one in SERVICES)

    # --- the API, from outside

    def bootstrap(self, tenant: str) -> None:
        """Make a tenant and use its key from now on."""
        self.key = self.compose(
            "exec", "-T", "api", "gliaforge", "bootstrap", "--tenant", tenant
        ).strip()

    def ask(self, method: str, path: str, timeout_s: float = 180, **options: Any) -> httpx.Response:
        """Send a request as a patient client does: again, with the same key, until it is answered.

        A read, a POST with an Idempotency-Key or a DELETE may be sent again after any failure.
        """
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": uuid.uuid4().hex}
        url = f"http://127.0.0.1:{self.variables()['API_PORT']}{path}"
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                answer = httpx.request(
                    method,
                    url,
                    headers=headers,
                    timeout=60,
                    trust_env=False,
                    follow_redirects=method == "GET",
                    **options,
                )
            except httpx.TransportError:
                answer = None
            if answer is not None and not _is_passing(answer):
                return answer
            assert time.monotonic() < deadline_s, answer and answer.text
            time.sleep(0.3)

    def get(self, path: str) -> Any:
        """Return what is at a path of the API."""
        return self.ask("GET", path).raise_for_status().json()

    def make(self, path: str, body: Mapping[str, object]) -> str:
        """Make a resource below a path and return its own."""
        answer = self.ask("POST", path, json=body)
        assert answer.status_code in {201, 202}, answer.text
        return f"{path}/{answer.json()['id']}"

    def upload(self, archive: bytes) -> str:
        """Make a dataset of an archive; return its path, while it is ingested."""
        path = self.make("/v1/datasets", {"name": "heads", "kind": "real"})
        answer = self.ask("PUT", f"{path}/content", content=archive)
        # 409: the answer to the first was lost, and it had been taken.
        assert answer.status_code in {202, 409}, answer.text
        return path

    def train(self, dataset: str, config: Mapping[str, object] = LONG) -> str:
        """Ask for a generator; return its path."""
        body = {"name": "g", "dataset_id": _id(dataset), "preset": "demo", "config": dict(config)}
        return self.make("/v1/generators", body)

    def sample(self, generator: str) -> str:
        """Ask for a batch; return its path."""
        body = {"generator_id": _id(generator), "count": 8, "seed": 1}
        return self.make("/v1/sample-batches", body)

    def report(self, dataset: str, batch: str) -> str:
        """Ask for a report; return its path."""
        body = {"real_dataset_id": _id(dataset), "sample_batch_id": _id(batch), "profile": "quick"}
        return self.make("/v1/reports", body)

    def begun(self, generator: str) -> str:
        """Wait for the first checkpoint of a training, which must still run; return its path."""
        self.until(lambda: self.get(f"{generator}/checkpoints")["data"])
        assert self.get(generator)["job"]["status"] == "running", "it is over: make it longer"
        return generator

    def succeeded(self, path: str) -> Any:
        """Wait for the end of a resource's job, which must be good, and return the job."""

        def ended() -> object:
            job = self.get(path)["job"]
            return job["status"] in job_states.FINAL and job

        job = self.until(ended)
        assert job["status"] == "succeeded", job
        return job

    def contents(self) -> dict[str, Any]:
        """Return all that the API shows of this tenant: each resource, and each file of it."""
        found: dict[str, Any] = {}
        for name in _LISTS:
            resources = self.get(f"/v1/{name}?limit=100")["data"]
            assert resources, f"there are no {name} to compare"
            for resource in resources:
                path = f"/v1/{name}/{resource['id']}"
                found[path] = resource
                for below in _BELOW[name]:
                    answer = self.ask("GET", f"{path}/{below}").raise_for_status()
                    is_json = answer.headers["Content-Type"].startswith("application/json")
                    found[f"{path}/{below}"] = answer.json() if is_json else answer.content
                if name == "sample-batches":
                    for image in found[f"{path}/images"]["data"]:
                        # Signed anew each time: what counts is the picture behind it.
                        signed = httpx.get(image.pop("url"), trust_env=False)
                        image["picture"] = signed.raise_for_status().content
        return found

    # --- what is left

    def audit(self) -> None:
        """Hold that no job, process, run folder, row or object is left that nobody owns."""
        self.until(lambda: self.get("/v1/jobs?status=running")["data"] == [])
        self.until(lambda: self._strays() == [], 90)
        self.compose("exec", "-T", "api", "python", "-I", "-", given=AUDIT.read_text())

    def _strays(self) -> list[str]:
        found = []
        for worker in WORKERS:
            folders = self.compose("exec", "-T", worker, "ls", "/scratch").split()
            found += [f"{worker}: {name}" for name in folders if name.startswith("run-")]
            container = self.compose("ps", "--quiet", worker).strip()
            running = self.run(DOCKER, "top", container, "-eo", "pid,args").splitlines()
            found += [line for line in running if "-m models" in line and "sampler" not in line]
        return found

    def variables(self) -> dict[str, str]:
        """Return what .env says."""
        lines = (self.folder / ".env").read_text().splitlines()
        said = (line.partition("=") for line in lines if not line.startswith("#"))
        return {name: value for name, mark, value in said if mark}


def checkout(folder: Path, source: Path = ROOT) -> Path:
    """Copy what compose needs of a checkout, and make its .env, with ports that are free."""
    folder.mkdir(parents=True)
    for name in ("docker-compose.yml", ".env.example", "pyproject.toml"):
        shutil.copy(source / name, folder)
    shutil.copytree(source / "deploy", folder / "deploy")
    subprocess.run(["sh", "deploy/make-env.sh", "cpu"], cwd=folder, check=True, capture_output=True)
    file = folder / ".env"
    lines = [line for line in file.read_text().splitlines() if "_PORT=" not in line]
    lines += [f"API_PORT={_free_port()}", f"S3_PORT={_free_port()}", "THREADS=1"]
    file.write_text("\n".join(lines) + "\n")
    return folder


def images_of(stack: Stack) -> dict[str, str]:
    """Return the image of each service, as compose reads its file."""
    services = json.loads(stack.compose("config", "--format", "json"))["services"]
    return {name: service["image"] for name, service in services.items()}


def build_options(stack: Stack) -> tuple[str, ...]:
    """Return what a build needs to reach a package index on an engine without a bridge."""
    networks = stack.run(DOCKER, "network", "ls", "--format", "{{.Name}}").split()
    return () if "bridge" in networks else ("--network", "host")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _is_passing(answer: httpx.Response) -> bool:
    """Tell whether the same request may have another answer in a while."""
    if answer.status_code == 503:
        return True
    return answer.status_code == 409 and answer.json()["code"] == "idempotency_in_flight"


def _id(path: str) -> str:
    return path.rsplit("/", 1)[1]
