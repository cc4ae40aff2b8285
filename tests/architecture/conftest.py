"""`pytest tests/architecture --update-openapi` writes the snapshot instead of comparing it."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-openapi", action="store_true", help="rewrite openapi.json")
