"""`maintainer emulator` says what a client needs to know, serves it, and ends when told to."""

import re
import signal
import socket
import subprocess
import sys

import httpx2
import pytest

from maintainer.emulator.command import parse_listen, run_emulator
from maintainer.errors import UsageError

COMMAND = "from maintainer.emulator.command import run_emulator as run; run('127.0.0.1:0', 1000)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_with_what_it_prints_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        environment: dict[str, str] = {}
        while "GITHUB_API_URL" not in environment:
            line = process.stdout.readline()
            match = re.fullmatch(r"export (\w+)='([^']*)'\n", line)
            assert match, line
            environment[match[1]] = match[2]
        api, repository = environment["GITHUB_API_URL"], environment["GITHUB_REPOSITORY"]
        answer = httpx2.get(
            f"{api}/repos/{repository}/actions/caches",
            headers={"Authorization": f"Bearer {environment['GITHUB_TOKEN']}"},
        )
        assert answer.json() == {"total_count": 0, "actions_caches": []}
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""
    # A database that knows an emulator must not take the next one for it.
    assert re.fullmatch(r"example/app-\d{4}-\d{6}", environment["GITHUB_REPOSITORY"])
    assert environment["GITHUB_REF"] == "refs/heads/main"


@pytest.mark.parametrize(
    "listen",
    ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "example.com:80", "127.0.0.1", ":80", "127.0.0.1:x"],
)
def test_it_listens_on_loopback_only(listen: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_emulator(listen)
    assert "\n" not in str(caught.value)


def test_loopback_has_several_names() -> None:
    assert parse_listen("localhost:8080") == ("127.0.0.1", 8080)
    assert parse_listen("[::1]:0") == ("::1", 0)
    assert parse_listen("127.0.0.9:1") == ("127.0.0.9", 1)


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            run_emulator(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("import os; os.environ['ACTIONS_RUNTIME_TOKEN']; exit('127' in os.environ['X'])", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
        ("pass", 0),
    ],
    ids=["a status of its own", "a signal", "nothing"],
)
def test_a_command_gets_the_variables_and_its_status_is_returned(
    script: str, status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("X", "127.0.0.1")

    found = run_emulator("127.0.0.1:0", command=[sys.executable, "-c", script])

    assert (found, *capfd.readouterr()) == (status, "", "")


def test_sigterm_is_passed_on_to_the_command() -> None:
    child = (
        "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
        "os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    )
    parent = (
        "import sys; from maintainer.emulator.command import run_emulator as run; "
        f"sys.exit(run('127.0.0.1:0', command=[sys.executable, '-c', {child!r}]))"
    )
    assert subprocess.run([sys.executable, "-c", parent], check=False, timeout=60).returncode == 7


def test_a_command_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="no-such-command: there is no such command"):
        run_emulator("127.0.0.1:0", command=["no-such-command"])
