"""The unit for systemd and the recipe for a container, as far as they can be checked here."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from compose_spec import PyOptions
from lightkube.codecs import load_all_yaml
from lightkube.core.exceptions import LoadResourceError
from sqlalchemy import make_url
from starlette.testclient import TestClient

import maintainer
from maintainer.clock import now_utc
from maintainer.database_url import check_database
from maintainer.graph.database import Database
from maintainer.serve.web.app import Pages
from maintainer.serve.web.guard import Guard
from maintainer.serve.web.metrics import render_metrics
from maintainer.settings import Settings, load_settings
from tests.alerts import read_rules
from tests.commands import run_here

ROOT = Path(maintainer.__file__).parents[1]
UNIT = ROOT / "config" / "maintainer.service"
DOCKERFILE = ROOT / "config" / "Dockerfile"
COMPOSE = ROOT / "config" / "compose.yml"
KUBERNETES = ROOT / "config" / "kubernetes.yml"
WITH_EXTRAS = "config/extras/requirements.txt"
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
    default = re.findall(r"^ARG REQUIREMENTS=(\S+)$", text, re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    copied[copied.index("${REQUIREMENTS}")] = " ".join([*default, str(WITH_EXTRAS)])

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


def test_alerts_compare_series_with_the_same_labels() -> None:
    """Prometheus adds `instance` and `job`, which `by` would drop on one side only."""
    rules = read_rules()
    assert len(rules) >= 10

    for rule in rules:
        metrics = len(_METRIC.findall(rule["expr"]))
        assert metrics < 2 or not re.search(r"\bby\b", rule["expr"]), rule["alert"]


def test_the_documented_metrics_are_those_of_the_service(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path}/maintainer.db")) as database:
        database.upgrade()
        with database.reading() as connection:
            text = render_metrics(connection, now_utc()).decode()
    page = (ROOT / "docs" / "service.md").read_text()

    served = set(re.findall(r"^# TYPE (maintainer_\w+)", text, re.MULTILINE))
    assert set(re.findall(r"`(maintainer_\w+)`", page)) == served


def test_the_dashboard_has_a_place_for_each_panel() -> None:
    panels = json.loads((ROOT / "config" / "grafana.json").read_text())["panels"]

    places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}

    assert len(places) == len({one["id"] for one in panels}) == len(panels)
    assert all(target["expr"] for one in panels for target in one["targets"])


def test_the_image_with_all_extras_has_what_each_of_them_needs_in_the_same_versions() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    plain, more, tested = (
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / one).read_text(), re.MULTILINE))
        for one in ("config/action/requirements.txt", WITH_EXTRAS, "requirements.txt")
    )

    assert plain.items() < more.items() < tested.items()
    for needed in chain.from_iterable(extras.values()):
        assert re.split(r"[\[>]", needed)[0] in more, needed
    for path in (COMPOSE, ROOT / "docs" / "fleet.md", ROOT / "docs" / "service.md"):
        assert f"REQUIREMENTS={WITH_EXTRAS}" in path.read_text()


def test_the_compose_file_gives_the_service_what_it_needs_and_nothing_else() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    service, server = services["service"], services["database"]
    given = service["environment"]
    place = make_url(check_database(given["MAINTAINER_DATABASE"]))

    assert (place.host, place.username, place.password) == (
        "database",
        server["environment"]["POSTGRES_USER"],
        None,
    )
    assert place.database == server["environment"]["POSTGRES_DB"]
    assert given["PGPASSWORD"] == server["environment"]["POSTGRES_PASSWORD"]
    _assert_settings(given)
    assert services["worker"]["environment"] == given
    assert (services["worker"]["scale"], service["scale"]) == (2, 1)
    assert "ports" not in services["worker"]
    _assert_options(services["worker"]["command"])
    _assert_options(service["command"])
    assert service["ports"] == ["127.0.0.1:9309:9309"]
    assert "ports" not in server
    assert "outside" not in server["networks"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert "privileged" not in COMPOSE.read_text()


def _find_error(compose: str) -> str:
    """Return what is wrong with a Compose file, by its specification."""
    try:
        PyOptions(apply_merge=True).from_yaml(compose).validate()
    except ValueError as error:
        return str(error)
    return ""


def test_the_compose_file_keeps_to_the_specification() -> None:
    assert not _find_error(COMPOSE.read_text())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("read_only:", "readonly:"),
        ("condition:", "conditions:"),
        ("restart: unless-stopped", "restart: unless-stoped"),
        ("interval: 10s", "interval: often"),
        ("networks: [inside]", "networks: [insde]"),
    ],
)
def test_a_mistake_in_the_compose_file_would_be_found(right: str, wrong: str) -> None:
    text = COMPOSE.read_text()
    assert right in text

    assert _find_error(text.replace(right, wrong))


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not there")
def test_docker_understands_the_compose_file() -> None:
    given = {"POSTGRES_PASSWORD": "x", "GITHUB_TOKEN": "x", "GITHUB_REPOSITORY": "octo/app"}
    done = subprocess.run(
        ["docker", "compose", "-f", str(COMPOSE), "config", "--quiet"],
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    if "is not a docker command" in done.stderr or "unknown shorthand flag" in done.stderr:
        pytest.skip("docker compose is not there")
    assert done.returncode == 0, done.stderr


def _manifests() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the deployments of the service and the workers, and what else there is by its kind."""
    parts = list(yaml.safe_load_all(KUBERNETES.read_text()))
    service, workers = (one for one in parts if one["kind"] == "Deployment")
    return service, workers, {one["kind"]: one for one in parts if one["kind"] != "Deployment"}


def _check(manifests: str) -> None:
    """Check them by the types of Kubernetes' API; keys that these do not have would be lost."""
    checked = msgspec.to_builtins(load_all_yaml(manifests))
    assert checked == list(yaml.safe_load_all(manifests))


def test_the_manifests_keep_to_the_api_of_kubernetes() -> None:
    _check(KUBERNETES.read_text())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("readOnlyRootFilesystem:", "readonlyRootFilesystem:"),
        ("podSelector:", "podSelectr:"),
        ("secretKeyRef:", "secretKeyref:"),
        ("periodSeconds: 30", "periodSeconds: 30s"),
        ("apiVersion: apps/v1", "apiVersion: apps/v2"),
        ("drop: [ALL]", "drop: ALL"),
    ],
)
def test_a_mistake_in_the_manifests_would_be_found(right: str, wrong: str) -> None:
    text = KUBERNETES.read_text()
    assert right in text

    with pytest.raises((AssertionError, LoadResourceError, msgspec.ValidationError)):
        _check(text.replace(right, wrong))


def test_the_manifests_are_of_workers_and_a_service_with_least_privileges() -> None:
    service, workers, parts = _manifests()
    assert set(parts) == {"ConfigMap", "Service", "NetworkPolicy"}
    labels = service["spec"]["template"]["metadata"]["labels"]
    selected = parts["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]

    assert (service["spec"]["replicas"], workers["spec"]["replicas"]) == (1, 2)
    assert parts["Service"]["spec"]["selector"] == labels
    assert parts["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for deployment in (service, workers):
        _assert_least_privileges(deployment["spec"])
        assert selected.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert workers["spec"]["selector"] != service["spec"]["selector"]


def _assert_least_privileges(spec: Mapping[str, Any]) -> None:
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    _assert_options(container["args"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) in DOCKERFILE.read_text()
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # Every secret is one that the first lines say how to make.
    keys = [one["valueFrom"]["secretKeyRef"]["key"] for one in container["env"]]
    made = re.findall(r"--from-literal=([a-z-]+)=", KUBERNETES.read_text())
    assert keys == made
    _assert_settings({one["name"]: "" for one in container["env"]})


def test_the_manifests_configure_a_service_that_answers_its_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _, parts = _manifests()
    file = tmp_path / "maintainer.toml"
    file.write_text(parts["ConfigMap"]["data"][file.name])
    monkeypatch.setenv("GITHUB_TOKEN", "x")
    settings = load_settings(file, {})
    (container,) = service["spec"]["template"]["spec"]["containers"]
    pages = Pages(Database("sqlite:///nowhere.db"), lambda: True, now_utc, dict, str)
    host, _, port = settings.serve.listen.rpartition(":")
    guarded = Guard(pages.app(), host=host, hosts=settings.serve.hosts)
    client = TestClient(guarded, base_url="http://10.1.2.3:9309")

    assert port == str(container["ports"][0]["containerPort"])
    for kind in ("livenessProbe", "startupProbe"):
        assert client.get(container[kind]["httpGet"]["path"]).status_code == 200
    for name, status in (("maintainer:9309", 200), ("elsewhere.example", 421)):
        assert client.get("/healthz", headers={"Host": name}).status_code == status


def _assert_options(line: Sequence[str]) -> None:
    """Check that a command has all its options."""
    command, *rest = line
    help_text = run_here(ROOT, {}, command, "--help").out
    for option in rest:
        assert not option.startswith("--") or option in help_text


def _assert_settings(variables: Mapping[str, str]) -> None:
    """Check that all variables of ours are settings."""
    ours = {name for name in variables if name.startswith("MAINTAINER_")}
    assert ours
    assert ours <= {f"MAINTAINER_{name.upper()}" for name in Settings.model_fields}
