"""The unit for systemd and the recipe for a container, as far as they can be checked here."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import maintainer
from tests.commands import run_here

ROOT = Path(maintainer.__file__).parents[1]
UNIT = ROOT / "config" / "maintainer.service"
DOCKERFILE = ROOT / "config" / "Dockerfile"
BINARY = "/opt/maintainer/bin/maintainer"
MOST_EXPOSED = 20
"""Tenths of what `systemd-analyze security` counts up to 10; a plain service has 9.6."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not there"
)


@needs_systemd
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(BINARY, "/bin/true"))

    done = _analyze("verify", "--man=no", str(unit))

    assert done.returncode == 0, done.stderr
    assert str(unit.name) not in done.stderr


@needs_systemd
def test_the_unit_leaves_little_open() -> None:
    done = _analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", str(UNIT))

    assert done.returncode == 0, done.stdout


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_image_copies_what_there_is_and_installs_what_is_locked() -> None:
    text = DOCKERFILE.read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)

    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
    assert "--require-hashes" in text
    assert re.findall(r"^USER (\d+):\1$", text, re.MULTILINE) == ["65532"]


@pytest.mark.parametrize("path", [UNIT, DOCKERFILE])
def test_no_option_is_named_that_there_is_not(path: Path) -> None:
    help_text = run_here(ROOT, {}, "serve", "--help").out
    command = re.search(r"(ExecStart=.*|CMD \[\"serve\".*)", path.read_text())

    assert command
    for option in re.findall(r"--[a-z-]+", command[0]):
        assert option in help_text


_METRIC = re.compile(r"\bmaintainer_[a-z_]+")


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_dashboard_and_alerts_use_metrics_that_there_are(name: str) -> None:
    text = (ROOT / "config" / name).read_text()
    documented = (ROOT / "docs" / "service.md").read_text()

    used = set(_METRIC.findall(text))

    assert len(used) >= 5
    for metric in used:
        assert f"`{metric}`" in documented, metric


def test_the_dashboard_has_a_place_for_each_panel() -> None:
    panels = json.loads((ROOT / "config" / "grafana.json").read_text())["panels"]

    places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}

    assert len(places) == len({one["id"] for one in panels}) == len(panels)
    assert all(target["expr"] for one in panels for target in one["targets"])
