"""The alerts and the dashboard as they are written, and the programs that judge them."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # no stubs are installed

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "observability"
_BESIDE = Path(sys.executable).parent
"""Where `.ci/prometheus` puts what is not installed."""
PROMTOOL, PROMETHEUS = (
    shutil.which(name) or shutil.which(name, path=str(_BESIDE))
    for name in ("promtool", "prometheus")
)
needs_prometheus = pytest.mark.skipif(
    PROMTOOL is None or PROMETHEUS is None,
    reason="NOT TESTED: prometheus and promtool are not there; .ci/prometheus gets them",
)


def groups() -> list[dict[str, Any]]:
    """Return the groups of rules, fresh copies each time."""
    found: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return found


def alerts() -> list[dict[str, Any]]:
    """Return the alerts."""
    return [rule for group in groups() for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard, its rows too."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return found


def queries() -> list[str]:
    """Return what the dashboard asks, with times in place of Grafana's variables."""
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    return [re.sub(r"\$__\w+", "5m", query) for query in asked]
