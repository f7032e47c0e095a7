"""The alert rules for Prometheus that the project offers."""

from pathlib import Path
from typing import Any

import yaml

ALERTS = Path(__file__).parents[1] / "config" / "alerts.yml"


def read_rules() -> list[dict[str, Any]]:
    """Return the rules, in order."""
    rules: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return rules
