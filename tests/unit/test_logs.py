"""Log lines for machines: one JSON object each, which says what it is about."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import psycopg
import pytest
from procrastinate.exceptions import ConnectorException

from maintainer.console import set_up_logging
from maintainer.logs import JsonLines, StagesInLogs, log_context
from maintainer.progress import Unwatched
from tests.commands import logging_put_back


class Log:
    """A logger whose lines can be read."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(JsonLines())
        self.logger = logging.getLogger("maintainer.of.this.test")

    def lines(self) -> list[dict[str, Any]]:
        """Read all lines."""
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    log.logger.addHandler(log.handler)
    log.logger.setLevel(logging.INFO)
    log.logger.propagate = False
    yield log
    log.logger.removeHandler(log.handler)
    log.logger.propagate = True


def test_a_line_has_a_time_a_level_and_words(log: Log) -> None:
    log.logger.warning("%d entries", 3)

    (line,) = log.lines()
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "message": "3 entries",
        "logger": "maintainer.of.this.test",
    }


def test_within_a_run_a_line_names_it_and_the_stage(log: Log) -> None:
    with log_context(target="web"), log_context(run=3, target="github:octo/web"):
        progress = StagesInLogs(Unwatched())
        log.logger.info("begins")
        progress.stage("probe: list entries")
        log.logger.info("lists")
        progress.stage("sweep", 2)
        log.logger.info("sweeps")
    log.logger.info("is over")

    of_run = {"run": 3, "target": "web"}
    keys = ("run", "target", "stage")
    told = [{key: line[key] for key in keys if key in line} for line in log.lines()]
    assert told == [of_run, of_run | {"stage": "probe"}, of_run | {"stage": "sweep"}, {}]


def test_tasks_within_a_run_know_its_stage(log: Log) -> None:
    async def say() -> None:
        log.logger.info("looks up")

    async def run() -> None:
        with log_context(run=1):
            progress = StagesInLogs(Unwatched())
            async with anyio.create_task_group() as group:
                progress.stage("probe: look up blobs")
                group.start_soon(say)

    anyio.run(run)

    assert [line["stage"] for line in log.lines()] == ["probe"]


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[31m", "\u202e", "\u2028", '"'])
def test_a_line_stays_a_line_whatever_a_key_holds(log: Log, hostile: str) -> None:
    log.logger.info("key %s", hostile)

    (line,) = log.lines()
    assert line["message"] == f"key {hostile}"


def test_a_mistake_of_ours_is_one_line_too(log: Log) -> None:
    try:
        int("wrong")
    except ValueError:
        log.logger.exception("a mistake")

    (line,) = log.lines()
    assert "ValueError: " in line["exception"]


class _Terminal(io.StringIO):
    """What people see, with its escape sequences."""

    def isatty(self) -> bool:
        """Pretend to be a terminal."""
        return True


@contextmanager
def _logging_to(terminal: _Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with logging_put_back():
        set_up_logging(verbose=False, quiet=False)
        yield


def test_on_a_terminal_no_part_of_a_name_is_highlighted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()

    with _logging_to(terminal, monkeypatch):
        logging.getLogger("maintainer").info("run 1 on github:example/app starts")

    assert "run 1 on github:example/app starts" in terminal.getvalue()


@contextmanager
def _logging_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stderr", pipe)
    with logging_put_back():
        set_up_logging(verbose=False, quiet=False, log_format="json")
        yield pipe


def _logged(monkeypatch: pytest.MonkeyPatch, name: str, message: str, error: Exception) -> str:
    with _logging_json(monkeypatch) as pipe:
        try:
            raise error
        except type(error):
            logging.getLogger(name).exception(message)
    return pipe.getvalue()


def _lost() -> Exception:
    lost = ConnectorException("\n    Database error.\n")
    lost.__cause__ = psycopg.OperationalError("the connection is lost\nLINE 1: SELECT")
    return lost


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (_lost(), "OperationalError: the connection is lost"),
        (ConnectionResetError("reset by peer"), "ConnectionResetError: reset by peer"),
    ],
)
@pytest.mark.parametrize("name", ["procrastinate.worker", "asyncio", "psycopg.pool"])
@pytest.mark.parametrize("more", ["\nfuture: <Task>", ": {error}, stopping", ": {error!r}"])
def test_a_connection_that_a_library_has_lost_is_one_line_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, name: str, more: str, error: Exception, why: str
) -> None:
    logged = _logged(monkeypatch, name, f"it has failed{more.format(error=error)}", error)

    line = json.loads(logged)
    assert line["message"] == f"it has failed: {why}"
    assert "exception" not in line


def test_what_a_library_says_of_a_lost_connection_without_an_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = psycopg.OperationalError("connection failed: No such file\n\tIs the server running?")
    with _logging_json(monkeypatch) as pipe:
        logging.getLogger("psycopg").warning("query cancellation failed: %s", lost)

    line = json.loads(pipe.getvalue())
    assert line["message"] == "query cancellation failed: connection failed: No such file"


@pytest.mark.parametrize(
    ("name", "error"),
    [("procrastinate.worker", KeyError("name")), ("maintainer.serve", OSError("full"))],
)
def test_a_mistake_of_ours_has_its_traceback_whoever_logs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    logged = _logged(monkeypatch, name, "a mistake", error)

    assert "Traceback" in json.loads(logged)["exception"]
