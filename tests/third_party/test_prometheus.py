"""Prometheus itself reads the alert rules: each is raised in trouble, and none without."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.alerts import ALERTS, read_rules

DAYS = 3

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None and os.environ.get("CI") != "true",
    reason="there is no promtool: apt-get install prometheus",
)

_GOOD = {
    "maintainer_fleet_failing": 0,
    "maintainer_fleet_overdue": 0,
    'maintainer_discovery_up{discovery="octo"}': 1,
    "maintainer_configuration_up": 1,
    'maintainer_consecutive_failures{target="app"}': 0,
    'maintainer_target_overdue{target="app"}': 0,
    'maintainer_last_success_timestamp_seconds{target="app"}': DAYS * 86_400,
    'maintainer_verdict{target="app", level="bad"}': 0,
    'maintainer_verdict{target="app", level="good"}': 1,
    'maintainer_stored_bytes{target="app", state="reachable"}': 500,
    'maintainer_stored_bytes{target="app", state="dangling"}': 300,
    'maintainer_quota_bytes{target="app"}': 1_000,
    'maintainer_results_possible{target="app"}': 20,
    'maintainer_results_usable{target="app"}': 20,
}
_BAD = _GOOD | {
    "maintainer_fleet_failing": 1,
    "maintainer_fleet_overdue": 1,
    'maintainer_discovery_up{discovery="octo"}': 0,
    "maintainer_configuration_up": 0,
    'maintainer_consecutive_failures{target="app"}': 3,
    'maintainer_target_overdue{target="app"}': 1,
    'maintainer_last_success_timestamp_seconds{target="app"}': 0,
    'maintainer_verdict{target="app", level="bad"}': 1,
    'maintainer_stored_bytes{target="app", state="dangling"}': 450,
    'maintainer_results_usable{target="app"}': 8,
}


def _promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = ["promtool", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def _raised(alerts: list[str]) -> str:
    """Return an expression that is 1 if just these alerts are raised, whatever their labels."""
    one_each = 'count(count by (alertname) (ALERTS{alertstate="firing"})) or vector(0)'
    these = f'count(count by (alertname) (ALERTS{{alertname=~"{"|".join(alerts)}"}})) or vector(0)'
    return f"({one_each}) == bool {len(alerts)} and ({these}) == bool {len(alerts)}"


def _test(folder: Path, series: dict[str, int], alerts: list[str]) -> str:
    """Let Prometheus see the same for days; return what it says if other alerts are raised."""
    times = DAYS * 24 * 4
    story = {
        "interval": "15m",
        "input_series": [
            {"series": _scraped(name), "values": f"{value}x{times}"}
            for name, value in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": _raised(alerts),
                "eval_time": f"{DAYS}d",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(
        yaml.safe_dump(
            {"rule_files": [str(ALERTS)], "evaluation_interval": "15m", "tests": [story]}
        )
    )
    done = _promtool("test", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _scraped(series: str) -> str:
    """Return a series with the labels that Prometheus adds."""
    name, _, labels = series.partition("{")
    more = ['instance="localhost:8080"', 'job="maintainer"']
    return f"{name}{{{', '.join([*filter(None, [labels.removesuffix('}')]), *more])}}}"


def test_prometheus_takes_the_alert_rules() -> None:
    done = _promtool("check", "rules", ALERTS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(read_rules())} rules found" in done.stdout


def test_in_trouble_each_alert_is_raised(tmp_path: Path) -> None:
    assert _test(tmp_path, _BAD, [rule["alert"] for rule in read_rules()]) == ""


def test_without_trouble_no_alert_is_raised(tmp_path: Path) -> None:
    assert _test(tmp_path, _GOOD, []) == ""


def test_alerts_that_are_missing_are_found_missing(tmp_path: Path) -> None:
    assert "MaintainerTargetFails" in _test(tmp_path, _GOOD, ["MaintainerTargetFails"])
