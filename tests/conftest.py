"""Sockets are closed but where real servers are talked to; the folder says which kind a test is."""

from pathlib import Path

import pytest

REAL = {
    "containers": pytest.mark.containers,
    "e2e": pytest.mark.e2e,
    "faults": pytest.mark.faults,
    "integration": pytest.mark.integration,
}
"""The folders of tests that talk to real servers, those that take longest first."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    several = hasattr(config, "workerinput")
    for item in items:
        kind, *_ = _path(config, item)
        if kind in REAL:
            item.add_marker(REAL[kind])
            item.add_marker(pytest.mark.enable_socket)
    if several:  # what takes long is begun first, and the small fill the gaps at the end
        order = list(REAL)
        items.sort(key=lambda item: (*order, _path(config, item)[0]).index(_path(config, item)[0]))


def _path(config: pytest.Config, item: pytest.Item) -> tuple[str, ...]:
    return Path(item.path).relative_to(config.rootpath / "tests").parts
