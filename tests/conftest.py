"""Sockets are closed but where real servers are talked to; the folder says which kind a test is."""

from pathlib import Path

import pytest

REAL = {
    "integration": pytest.mark.integration,
    "e2e": pytest.mark.e2e,
    "faults": pytest.mark.faults,
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        kind = Path(item.path).relative_to(config.rootpath / "tests").parts[0]
        if kind in REAL:
            item.add_marker(REAL[kind])
            item.add_marker(pytest.mark.enable_socket)
