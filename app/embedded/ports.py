"""Choose free loopback ports, and keep them from one start to the next.

Kept, because a presigned URL contains the port of the storage, and because SeaweedFS names a folder
of its state after its port. Chosen below the range from which Linux takes the ports of outgoing
connections (32768 up), so that none is lost between the choice and its use.
"""

import json
import secrets
import socket
from collections.abc import Sequence

from app.embedded.home import Home, write_private

GRPC_OFFSET = 10_000
"""SeaweedFS listens for gRPC this far above each of its ports."""

_LOWEST, _HIGHEST = 12_000, 22_000


def is_free(port: int) -> bool:
    """Tell whether nothing listens on the loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do it: connections of the last run that still linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_free_pair(port: int) -> bool:
    """Tell whether the port and the one that gRPC would take are free."""
    return is_free(port) and is_free(port + GRPC_OFFSET)


def ports_of(home: Home, part: str, names: Sequence[str]) -> dict[str, int]:
    """Return a port for each name, the same as last time if they are all free.

    Each can be used together with its gRPC port.
    """
    path = home.path / f"{part}-ports.json"
    ports = _read_ports(home, part)
    if set(ports) != set(names) or not all(map(is_free_pair, ports.values())):
        ports = _choose(names)
        write_private(path, json.dumps(ports))
    return ports


def forget_ports(home: Home, part: str) -> None:
    """Choose anew at the next `ports_of`."""
    (home.path / f"{part}-ports.json").unlink(missing_ok=True)


def _read_ports(home: Home, part: str) -> dict[str, int]:
    try:
        text = (home.path / f"{part}-ports.json").read_text(encoding="utf-8")
        return {str(name): int(port) for name, port in json.loads(text).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _choose(names: Sequence[str]) -> dict[str, int]:
    taken: dict[str, int] = {}
    for name in names:
        while name not in taken:
            port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
            if port not in taken.values() and is_free_pair(port):
                taken[name] = port
    return taken
