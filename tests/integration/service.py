"""A real `maintainer serve` in a process of its own, and a cache for it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from maintainer.graph.database import Database
from maintainer.graph.schedule import TargetStatus, load_statuses
from tests.commands import Outcome, run_here
from tests.empty_database import change, query, url_of, uses_postgresql
from tests.processes import Command, Forked, start

PATIENCE = 60.0
"""Seconds that something may take that should happen at once."""
_URL = re.compile(r"serving (http://\S+/)")
_SERVE = ("serve", "--listen", "127.0.0.1:0")
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START")


def wait_until(condition: Callable[[], Any], *, patience: float = PATIENCE) -> Any:
    """Wait until something is so, and give it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


@dataclass
class Place:
    """A folder with a configuration, a database and logs, and the variables of a service there."""

    path: Path
    environment: Mapping[str, str]
    services: int = 0
    commands: int = 0

    @property
    def database(self) -> Path:
        """Where the database is."""
        return self.path / "maintainer.db"

    def configure(self, text: str) -> None:
        """Write the configuration."""
        (self.path / "maintainer.toml").write_text(text)

    def command(self, *arguments: str) -> list[str]:
        """Return a command line."""
        return [sys.executable, "-m", "maintainer", *arguments, "--config", "maintainer.toml"]

    def variables(self) -> dict[str, str]:
        """Return the variables of every command here."""
        machine = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if uses_postgresql():
            machine["MAINTAINER_DATABASE"] = url_of(self.database)
        return machine | dict(self.environment) | {"MAINTAINER_LOG_FORMAT": "json"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself."""
        self.commands += 1
        out, err = (self.path / f"{self.commands}.{name}" for name in ("out", "err"))
        status = self._fork(out, err, *arguments).wait(PATIENCE)
        return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())

    def _fork(self, out: Path, err: Path, *arguments: str) -> Forked:
        line = self.command(*arguments)[3:]
        return start(Command(line, self.path, self.variables(), out, err))

    def ask(self, *arguments: str) -> Outcome:
        """Run a command that sets no signals, in this process."""
        return run_here(self.path, self.variables(), *self.command(*arguments)[3:])

    @contextmanager
    def serving(self) -> Iterator["Service"]:
        """Serve as long as the context lasts; SIGTERM ends it."""
        log = self._new_log()
        process = self._fork(Path(os.devnull), log, *_SERVE)
        with self._until_its_end(process, log) as service:
            service.wait_until_it_serves()
            yield service

    @contextmanager
    def starting(self) -> Iterator["Service"]:
        """Start Python itself, and do not wait until it serves; SIGTERM ends it."""
        log = self._new_log()
        with log.open("w") as stderr:
            process = subprocess.Popen(
                self.command(*_SERVE), cwd=self.path, env=self.variables(), stderr=stderr
            )
        with self._until_its_end(process, log) as service:
            yield service

    def _new_log(self) -> Path:
        self.services += 1
        log = self.path / f"service-{self.services}.log"
        log.touch()
        return log

    @contextmanager
    def _until_its_end(
        self, process: Forked | subprocess.Popen[bytes], log: Path
    ) -> Iterator["Service"]:
        try:
            yield Service(self, process, log)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        return query(self.database, sql)

    def change(self, sql: str) -> None:
        """Change the database behind the back of the service."""
        change(self.database, sql)

    def runs(self) -> list[tuple[Any, ...]]:
        """List the runs: status, cache, start, end; the oldest first."""
        return self.query("SELECT status, target, started_at, finished_at FROM runs ORDER BY id")

    def statuses(self) -> list[TargetStatus]:
        """Return how the targets are doing, as the database says."""
        database = Database(url_of(self.database))
        try:
            with database.reading() as connection:
                return load_statuses(connection)
        finally:
            database.close()


@dataclass
class Service:
    """A service under way."""

    place: Place
    process: Forked | subprocess.Popen[bytes]
    log: Path
    url: str = ""
    client: httpx2.Client = field(default_factory=httpx2.Client)

    def wait_until_it_serves(self) -> None:
        """Wait until the log says where."""
        self.url = wait_until(self.find_url)

    def find_url(self) -> str | None:
        """Find in the log where it serves."""
        assert self.process.poll() is None, self.log.read_text()
        match = _URL.search(self.log.read_text())
        return match[1] if match else None

    def get(self, path: str, **headers: str) -> httpx2.Response:
        """Ask for a page."""
        return httpx2.get(f"{self.url}{path}", headers=headers, timeout=PATIENCE)

    def is_ready(self) -> bool:
        """Return whether all targets are doing well."""
        return self.get("readyz").status_code == httpx2.codes.OK

    def wait_until_ready(self) -> None:
        """Wait for the first good run of each target."""
        wait_until(self.is_ready)

    def lines(self) -> list[dict[str, Any]]:
        """Read the log, of which each line is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def says(self, words: str) -> bool:
        """Return whether the log says something."""
        return any(words in line["message"] for line in self.lines())

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Read the metrics: values by name and labels."""
        families = text_string_to_metric_families(self.get("metrics").text)
        return {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in families
            for sample in family.samples
        }

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and give the exit status."""
        self.send(number)
        return self.process.wait(PATIENCE)
