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
