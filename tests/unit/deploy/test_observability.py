"""Each alert fires when it must and is silent when it nearly must; the dashboard can be read."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # no stubs are installed

from tests.unit.deploy.observability import (
    FOLDER,
    PROMTOOL,
    alerts,
    groups,
    needs_prometheus,
    panels,
    queries,
)

ROWS = ["Now", "Traffic", "Queues", "Jobs", "Training", "Quality and privacy", "Storage"]
UNITS = {"none", "reqps", "s", "bytes", "Bps", "percentunit"}


def promtool(*arguments: object, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    """Run promtool and return how that ended."""
    assert PROMTOOL is not None
    command = [PROMTOOL, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)


@needs_prometheus
def test_configuration_is_read() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


@needs_prometheus
def test_alerts_fire_when_they_must_and_only_then() -> None:
    done = promtool("test", "rules", "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_prometheus
@pytest.mark.parametrize("always", [False, True], ids=["never fires", "always fires"])
@pytest.mark.parametrize("name", [alert["alert"] for alert in alerts()])
def test_broken_alert_is_noticed(tmp_path: Path, name: str, *, always: bool) -> None:
    broken = groups()
    for rule in (rule for group in broken for rule in group["rules"] if rule["alert"] == name):
        rule["expr"] = "vector(1)" if always else "vector(1) > 2"
        rule.pop("for", None)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": broken}))
    shutil.copy(FOLDER / "rules_test.yml", tmp_path)
    done = promtool("test", "rules", "rules_test.yml", cwd=tmp_path)
    assert done.returncode != 0
    assert name in done.stdout + done.stderr


def test_each_alert_is_tested_firing_and_silent() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    is_silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == is_silent == {alert["alert"] for alert in alerts()}


@needs_prometheus
def test_every_query_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    rules = [{"record": f"q:{number}", "expr": query} for number, query in enumerate(queries())]
    assert len(rules) > 30
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stderr
    path.write_text(path.read_text().replace("max by", "max bye"))
    assert promtool("check", "rules", path).returncode != 0


def test_dashboard_has_titles_and_units() -> None:
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows[: len(ROWS)] == ROWS
    shown = [panel for panel in panels() if panel["type"] != "row"]
    titles = [panel["title"] for panel in shown]
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in shown:
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]


def test_panels_do_not_lie_upon_each_other() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
