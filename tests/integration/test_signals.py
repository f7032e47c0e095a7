"""SIGTERM and Ctrl-C: the request under way ends, the run is remembered, and soon all is over."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from maintainer.emulator import Fault, FaultPlan, Request
from tests.integration.simulated_runs import MERGED
from tests.integration.small import Arrival, Stage, a_small_world, a_stage
from tests.integration.world import MAIN

pytestmark = pytest.mark.waits

PROMISED = 5.0
"""Seconds from the signal to the end, on a machine that starts a run in two."""
INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(tmp_path_factory.mktemp("signals"), a_small_world) as stage:
        yield stage


@pytest.fixture(scope="module")
def undisturbed(shared: Stage) -> Arrival:
    shared.set_up()
    assert shared.gc(merged_scope=MERGED).status == "done"
    return shared.arrival()


@pytest.fixture
def stage(shared: Stage, undisturbed: Arrival) -> Stage:
    shared.set_up()
    return shared


def _start(stage: Stage, *options: str) -> "subprocess.Popen[str]":
    database = f"sqlite:///{stage.world.database}"
    command = [sys.executable, "-m", "maintainer", "gc", "--grace", "0s", "--database", database]
    return subprocess.Popen(
        [*command, *options],
        env=stage.world.running.environment(MAIN) | {"PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=stage.folder,
    )


def _wait_for(there: threading.Event) -> float:
    """Wait for a request, and tell how many times as long as it should that took."""
    started = time.monotonic()
    assert there.wait(60)
    return max(1.0, (time.monotonic() - started) / 2)


def _end(process: "subprocess.Popen[str]", number: signal.Signals, slowness: float) -> str:
    """Send a signal, and give what the process prints; it must end in time."""
    process.send_signal(number)
    sent = time.monotonic()
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - sent < PROMISED * slowness
    assert "Traceback" not in errors
    return output


def _status_of_run(database: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT status FROM run WHERE finished_at IS NOT NULL").fetchall()


def _at_the_next(stage: Stage, kind: str, *, fault: Fault | None = None) -> threading.Event:
    """Return when a request of this kind is there; with a fault, it is spoilt again and again."""
    there = threading.Event()
    stage.begin()

    def before(request: Request) -> None:
        stage.watcher.before(request)
        if request.kind == kind:
            there.set()
            if fault is None:
                time.sleep(0.3)

    stage.world.running.observe(before=before, after=stage.after)
    stage.world.running.inject(FaultPlan((fault,) if fault else ()))
    return there


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("finalize", INT),
        ("delete", TERM),
        pytest.param("finalize", TERM, marks=pytest.mark.soak),
        pytest.param("delete", INT, marks=pytest.mark.soak),
    ],
)
def test_the_request_under_way_ends_and_the_next_run_goes_on(
    stage: Stage, undisturbed: Arrival, kind: str, number: signal.Signals
) -> None:
    there = _at_the_next(stage, kind)
    with _start(stage) as process:
        slowness = _wait_for(there)
        output = _end(process, number, slowness)

    assert process.returncode == 128 + number
    assert f"interrupted by {number.name}" in output
    assert _status_of_run(stage.world.database) == [("interrupted",)]
    assert all(request.status for request in stage.requests)
    assert sum(request.kind == "delete" for request in stage.requests) == (kind == "delete")
    if kind == "finalize":  # What was written is read back before the run ends.
        kinds = [request.kind for request in stage.requests]
        since = kinds[kinds.index("finalize") :]
        assert since.count("download") == since.count("finalize")
        assert since[-1] == "download"
    assert stage.watcher.problems == []
    assert stage.gc(merged_scope=MERGED).status == "done"
    assert stage.arrival() == undisturbed


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        (Fault(kind="status", status=503, retry_after=60, request="look-up"), TERM),
        (Fault(kind="stall", request="look-up"), INT),
        pytest.param(
            Fault(kind="status", status=503, retry_after=60, request="look-up"),
            INT,
            marks=pytest.mark.soak,
        ),
        pytest.param(Fault(kind="stall", request="look-up"), TERM, marks=pytest.mark.soak),
    ],
    ids=["waiting, TERM", "stalled, INT", "waiting, INT", "stalled, TERM"],
)
def test_neither_a_wait_nor_a_stalled_answer_holds_a_run_up(
    stage: Stage, undisturbed: Arrival, fault: Fault, number: signal.Signals
) -> None:
    there = _at_the_next(stage, "look-up", fault=fault)
    with _start(stage, "--json") as process:
        slowness = _wait_for(there)
        time.sleep(0.2)
        _end(process, number, slowness)

    assert process.returncode == 128 + number
    assert _status_of_run(stage.world.database) == [("interrupted",)]
    stage.world.running.inject()
    assert stage.gc(merged_scope=MERGED).status == "done"
    assert stage.arrival() == undisturbed


def test_a_second_signal_cuts_a_stalled_request_off(stage: Stage) -> None:
    there = _at_the_next(stage, "list", fault=Fault(kind="stall", request="list"))
    with _start(stage) as process:
        slowness = _wait_for(there)
        process.send_signal(INT)
        time.sleep(0.3)
        sent = time.monotonic()
        _end(process, INT, slowness)

    assert time.monotonic() - sent < 1.5 * slowness
    assert process.returncode == 130
    assert _status_of_run(stage.world.database) == [("interrupted",)]


_STARTING = (
    "import os, signal, sys, threading\n"
    "from maintainer.__main__ import main\n"
    # A shell lets what it starts in the background ignore Ctrl-C, and so the tests.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "class Interrupting:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name == {module!r}:\n"
    "            os.kill(os.getpid(), signal.{number})\n"
    "sys.meta_path.insert(0, Interrupting())\n"
    "main()\n"
)


@pytest.mark.parametrize("module", ["maintainer.cli.app", "sqlalchemy", "maintainer.stores.github"])
def test_ctrl_c_while_it_starts_ends_it_without_a_word(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STARTING.format(module=module, number="SIGINT"), "gc"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_sigterm_while_it_starts_ends_the_first_process_of_a_container() -> None:
    """By default the kernel keeps signals from a process that has the number 1."""
    container = ["unshare", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*container, "true"], check=False).returncode:
        pytest.skip("only root may have processes of another container")
    start = _STARTING.format(module="maintainer.cli.app", number="SIGTERM")
    done = subprocess.run(
        [*container, sys.executable, "-c", start, "--version"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
