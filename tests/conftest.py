"""Sockets are closed but where real servers are talked to; the folder says which kind a test is."""

from pathlib import Path

import pytest

REAL = {
    "e2e": pytest.mark.e2e,
    "faults": pytest.mark.faults,
    "integration": pytest.mark.integration,
}
"""The folders of tests that talk to real servers, those that take longest first."""

ONE_HOUSE = ("e2e", "faults")
"""Folders whose tests share the whole service: one process runs all of them."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups when its turn comes
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    several = hasattr(config, "workerinput")
    for item in items:
        kind, *_ = path = _path(config, item)
        if kind in REAL:
            item.add_marker(REAL[kind])
            item.add_marker(pytest.mark.enable_socket)
        if several:
            group = kind if kind in ONE_HOUSE else "/".join(path)
            item.add_marker(pytest.mark.xdist_group(group))
    if several:  # what takes long is begun first, and the small fill the gaps at the end
        order = list(REAL)
        items.sort(key=lambda item: (*order, _path(config, item)[0]).index(_path(config, item)[0]))


def _path(config: pytest.Config, item: pytest.Item) -> tuple[str, ...]:
    return Path(item.path).relative_to(config.rootpath / "tests").parts
