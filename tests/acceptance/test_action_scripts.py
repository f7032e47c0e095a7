"""The two scripts of the Action, run without a workflow around them."""

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import encode
from maintainer.emulator import ActionsCache, serve_in_thread
from tests.acceptance.action import LOCKS, ROOT, check_out, fetch_wheels
from tests.commands import run_here
from tests.snapshots import MAIN, an_index, blob_key
from tests.steps import obeyed, read_outputs
from tests.stores.docker_registry import a_registry

SCRIPTS = ROOT / "config" / "action"
FLAGS = {
    "INPUT_DRY_RUN": "false",
    "INPUT_NO_SWEEP": "false",
    "INPUT_ACCEPT_LOSS": "false",
    "INPUT_SAVE_DATABASE": "true",
    "SETTING_STORE": "configured",
    "MAINTAINER_DATABASE_KEY": "",
}
HOSTILE = "x##[set-output name=run]666\n::set-output name=run::666\n::error::x$(touch pwned)"
WRITTEN_AT = datetime.now(UTC) - timedelta(days=3)


def _clean() -> dict[str, str]:
    ours = ("GITHUB_", "ACTIONS_", "MAINTAINER_", "RUNNER_", "INPUT_", "SETTING_", "PIP_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@dataclass(frozen=True)
class Step:
    """The step that runs maintainer, with the environment of the tests in place of the Action's."""

    folder: Path
    environment: dict[str, str]

    def run(self, **more: str) -> tuple[int, list[str]]:
        """Run it with some more variables; give its exit status and its lines."""
        ran = subprocess.run(
            [SCRIPTS / "run.sh"],
            cwd=self.folder,
            env=_clean() | FLAGS | self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        return ran.returncode, ran.stdout.splitlines()

    def run_here(self, **more: str) -> tuple[int, list[str]]:
        """Run it up to the start of Python; do in this process what it would have started."""
        command = self.folder / "maintainer" / "venv" / "bin" / "maintainer"
        command.parent.parent.unlink()
        command.parent.mkdir(parents=True)
        command.write_text("#!/bin/sh\nenv -0 >environment\nprintf '%s\\n' \"$@\"\n")
        command.chmod(0o755)
        status, arguments = self.run(**more)
        assert status == 0, arguments
        given = (self.folder / "environment").read_text().rstrip("\0").split("\0")
        variables = dict(one.split("=", 1) for one in given)
        done = run_here(self.folder, variables, *arguments)
        return done.status, [*done.out.splitlines(), *done.err.splitlines()]

    @property
    def outputs(self) -> dict[str, str]:
        """What it has set."""
        return read_outputs(self.folder / "output")


@pytest.fixture
def step(tmp_path: Path) -> Iterator[Step]:
    """Return a step on a cache with an index whose scope is not what it seems."""
    (tmp_path / "maintainer").mkdir()
    (tmp_path / "maintainer" / "venv").symlink_to(sys.prefix)
    cache = ActionsCache()
    scopes = ("web", HOSTILE)
    keys = [(f"index-{scope}-1-f921bd05#{n}", chain) for scope in scopes for n, chain in _BUILDS]
    for key, chain in keys:
        cache.put(key, encode(an_index(chain)), ref=MAIN, created_at=WRITTEN_AT)
    for layer in ("base", "one", "two"):
        cache.put(blob_key(layer), layer.encode(), ref=MAIN, created_at=WRITTEN_AT)
    with serve_in_thread(cache) as running:
        yield Step(
            tmp_path,
            running.environment(MAIN)
            | {
                "MAINTAINER_DATABASE": "sqlite:///.maintainer/maintainer.db",
                "RUNNER_TEMP": str(tmp_path),
                "GITHUB_OUTPUT": str(tmp_path / "output"),
                "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            },
        )


_SWITCH = re.compile(r"::stop-commands::\w+|::\w+::")
_BUILDS = ((1, ("base", "one")), (2, ("base", "two")))


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("INPUT_DRY_RUN", "maybe", "input dry-run must be true or false"),
        ("INPUT_DRY_RUN", "", "input dry-run must be true or false"),
        ("INPUT_NO_SWEEP", "1", "input no-sweep must be true or false"),
        ("INPUT_ACCEPT_LOSS", HOSTILE, "input accept-loss must be true or false"),
        ("INPUT_SAVE_DATABASE", "yes", "input save-database must be true or false"),
        ("SETTING_STORE", "", "input store is empty: leave it out"),
        ("MAINTAINER_DATABASE_KEY", "maintainer#db", "input database-key must not contain a #"),
        ("SETTING_STORE", HOSTILE, "setting store "),
        ("SETTING_STORE", "registry://ghcr.io/octo/app?tags=", "setting store (from MAINTAINER_ST"),
        ("SETTING_GRACE", HOSTILE, "setting grace "),
        ("SETTING_SCOPES", "[", "setting scopes "),
        ("SETTING_CONFIG", "missing.toml", "the configuration file missing.toml does not exist"),
    ],
)
def test_bad_input_is_one_annotation_that_names_it_and_nothing_is_asked_of_the_cache(
    step: Step, variable: str, value: str, named: str
) -> None:
    # What our own settings refuse, a process refuses once, as the step starts it.
    by_script = named.startswith("input ") or variable == "SETTING_GRACE"
    run = step.run if by_script else step.run_here
    status, lines = run(**{variable: value}, ACTIONS_RESULTS_URL="http://127.0.0.1:9/")
    assert status == 2
    (line,) = obeyed(lines)
    assert line.startswith(f"::error title=maintainer::{named}")
    assert [one for one in lines if not _SWITCH.fullmatch(one)] == [line]
    assert not (step.folder / "pwned").exists()
    assert not (step.folder / ".maintainer" / "maintainer.db").exists()


def test_a_run_sets_its_own_outputs_whatever_the_names_the_job_and_missing_inputs(
    step: Step,
) -> None:
    # What the job does to Python does not reach the run.
    (step.folder / "maintainer.py").write_text("raise SystemExit('not this one')")
    # An input that is not given leaves the default.
    unset = {f"SETTING_{name}": "" for name in ("SCOPES", "QUOTA", "CONFIG")}
    unset["SETTING_GRACE"] = "0s"
    status, lines = step.run(PYTHONPATH=str(step.folder), **unset)
    assert status == 0, lines
    assert obeyed(lines) == []
    assert step.outputs["run"] == "1"
    assert step.outputs["indexes-written"] == "3"
    assert step.outputs["entries-deleted"] != "0"
    assert set(step.outputs) == _named_outputs()


def test_no_merge_is_written_if_an_input_says_so(step: Step) -> None:
    status, lines = step.run_here(SETTING_MERGED_SCOPE="none", SETTING_MERGED_TAG="")
    assert status == 0, lines
    assert step.outputs["indexes-written"] == "2"
    assert "maintained" not in (step.folder / "summary").read_text()


def test_a_variable_of_the_job_counts_unless_an_input_says_something_else(step: Step) -> None:
    # Blobs and generations are three days old.
    job = {"MAINTAINER_GRACE": "30d", "MAINTAINER_MERGED_SCOPE": "other", "SETTING_DATABASE": "x"}
    status, lines = step.run_here(**job, SETTING_GRACE="", SETTING_MERGED_SCOPE="")
    assert status == 0, lines
    assert step.outputs["entries-deleted"] == "0"
    assert "other" in (step.folder / "summary").read_text()


def test_an_input_counts_for_more_than_a_variable_of_the_job(step: Step) -> None:
    status, lines = step.run_here(MAINTAINER_GRACE="30d", SETTING_GRACE="0s")
    assert status == 0, lines
    assert step.outputs["entries-deleted"] != "0"


def test_flags_that_exclude_each_other_are_one_annotation_and_a_status(step: Step) -> None:
    status, lines = step.run_here(INPUT_DRY_RUN="true", INPUT_ACCEPT_LOSS="true")
    assert status == 2
    (line,) = obeyed(lines)
    assert line.startswith("::error title=maintainer::--dry-run and --accept-loss exclude each ")
    assert step.outputs["status"] == "failed"


def test_another_store_than_githubs_cache_is_an_input(step: Step) -> None:
    names = ("CONFIG", "SCOPES", "MERGED_SCOPE", "MERGED_TAG", "REMEMBER_EXPORTS", "REST_SHARE")
    unset = {f"SETTING_{name}": "" for name in names}
    with a_registry(step.folder) as registry:
        for tag in ("api", "web"):
            registry.build(tag, "base", tag)
        store = f"registry://{registry.host}/{registry.repository}?insecure=true"

        status, lines = step.run_here(**unset, SETTING_STORE=store)

        assert status == 0, lines
        both = registry.blobs_of("api") | registry.blobs_of("web")
        assert registry.blobs_of("maintained") >= both
    assert (step.outputs["verdict"], step.outputs["indexes-written"]) == ("good", "1")
    assert "ACTIONS_RUNTIME_TOKEN" not in (step.folder / "environment").read_text()
    assert "maintained" in (step.folder / "summary").read_text()


@pytest.mark.parametrize(("flag", "written"), [("INPUT_DRY_RUN", "0"), ("INPUT_NO_SWEEP", "3")])
def test_a_flag_does_what_its_name_says(step: Step, flag: str, written: str) -> None:
    status, lines = step.run_here(**{"SETTING_GRACE": "0s", flag: "true"})
    assert status == 0, lines
    assert step.outputs["indexes-written"] == written
    assert step.outputs["entries-deleted"] == "0"
    # A plan is printed with all names; the runner obeys none of them.
    if flag == "INPUT_DRY_RUN":
        assert any("set-output name=run" in line for line in lines)
    assert obeyed(lines) == []


def _named_outputs() -> set[str]:
    after = (ROOT / "action.yml").read_text().partition("\noutputs:\n")[2]
    lines = after.partition("\nruns:\n")[0].splitlines()
    return {line.strip(" :") for line in lines if line.startswith("  ") and line[2] != " "}


@pytest.mark.soak
@pytest.mark.parametrize("store", ["", "s3://my-bucket/app/"])
def test_a_real_installation_from_the_lock_runs(tmp_path: Path, store: str) -> None:
    environment = {
        "PYTHON": sys.executable,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": str(ROOT),
        "STORE": store,
    }
    left = tmp_path / ".maintainer" / "maintainer.db-wal"
    left.parent.mkdir()
    for _ in range(2):  # a second step of the same job finds it there
        left.touch()
        environment |= {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "elsewhere")}
        install = [SCRIPTS / "install.sh"]
        subprocess.run(install, cwd=tmp_path, env=_clean() | environment, check=True)
        assert not left.exists()
    command = tmp_path / "maintainer" / "venv" / "bin" / "maintainer"
    told = subprocess.run(
        [command, "--version"], cwd=tmp_path, env=_clean(), capture_output=True, check=True
    )
    assert told.stdout.strip()
    python = str(command.with_name("python"))
    found = subprocess.run([python, "-c", "import aiobotocore, azure.identity"], check=False)
    assert (found.returncode == 0) == bool(store)


_STAND_INS = {
    "python": """#!/bin/sh
case "$1 $2" in
  "-I -c") echo this-machine ;;
  "-m venv") mkdir -p "$5/bin" && cp "$STAND_INS/uv" "$5/bin" ;;
esac
""",
    "uv": """#!/bin/sh
echo "$@" >>"$STAND_INS/asked"
""",
}


@pytest.mark.parametrize(
    ("store", "wanted"),
    [
        ("", "bundle"),
        ("registry://ghcr.io/octo/app-cache", "bundle"),
        ("s3://my-bucket/app/", "config/extras/requirements.txt"),
        ("azblob://account/container", "config/extras/requirements.txt"),
    ],
)
def test_the_sdk_of_a_bucket_is_installed_though_a_release_has_added_all_else(
    tmp_path: Path, store: str, wanted: str
) -> None:
    asked, action = tmp_path / "asked", tmp_path / "action"
    for name, text in _STAND_INS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "start.py").touch()
    bundle = action / "config" / "action" / "bundle" / "this-machine.tar.gz"
    bundle.parent.mkdir(parents=True)
    with tarfile.open(bundle, "w:gz") as archive:
        archive.add(tmp_path / "start.py", "start.py")
    environment = {
        "PYTHON": str(tmp_path / "python"),
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": str(action),
        "STAND_INS": str(tmp_path),
        "STORE": store,
    }

    for _ in range(2):  # a second step of the same job finds it there
        install = [SCRIPTS / "install.sh"]
        subprocess.run(install, cwd=tmp_path, env=_clean() | environment, check=True)

    lines = asked.read_text().splitlines() if asked.exists() else []
    if wanted == "bundle":
        assert lines == []
        assert (tmp_path / "maintainer" / "bundle" / "start.py").exists()
    else:
        assert len(lines) == 2
        assert lines[0].endswith(f"--require-hashes --only-binary :all: -r {action / wanted}")


_TO_BUILD = ("hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers")
"""What a build of the package itself needs: enough of the lock to see who installs it."""


def test_what_only_pip_finds_is_installed_by_pip(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    checkout = tmp_path / "checkout"
    check_out(checkout)
    lock = checkout / "config" / "action" / "requirements.txt"
    pins = re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE)
    lock.write_text("".join(pin for pin in pins if pin.startswith(_TO_BUILD)))
    environment = {
        "PYTHON": sys.executable,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": str(checkout),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(fetch_wheels(request.config.cache.mkdir("action-wheels"))),
        "PIP_NO_INDEX": "1",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_FIND_LINKS": "",
        "UV_OFFLINE": "1",
    }
    ran = subprocess.run(
        [SCRIPTS / "install.sh"],
        cwd=tmp_path,
        env=_clean() | environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "No solution found" in ran.stderr, "from uv"
    python = tmp_path / "maintainer" / "venv" / "bin" / "python"
    where = "import hatchling, maintainer; print(hatchling.__path__[0], maintainer.__path__[0])"
    told = subprocess.run(
        [python, "-c", where],
        cwd=tmp_path,
        env=_clean(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(path).is_relative_to(tmp_path) for path in told.stdout.split())


def test_what_is_installed_has_been_locked_with_hashes_and_is_what_the_tests_run_with() -> None:
    ours = (ROOT / "requirements.txt").read_text()
    installer, dependencies = (_pins(lock.read_text()) for lock in LOCKS)
    assert [pin.partition("==")[0] for pin in installer] == ["uv"]
    assert len(dependencies) > 20
    assert [pin for pin in dependencies if f"{pin} " not in ours] == []


def _pins(lock: str) -> list[str]:
    pins = [line.split(" ")[0] for line in lock.splitlines() if "==" in line]
    assert lock.count("--hash=sha256:") >= len(pins)
    return pins
