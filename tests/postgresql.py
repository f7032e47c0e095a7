"""A PostgreSQL server of the tests' own, below a temporary directory, and databases on it."""

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from maintainer.graph.database import Database
from maintainer.graph.tables import METADATA
from tests.ports import free_port

_IN_MEMORY = Path("/dev/shm")
_NOBODY = 65_534
PASSWORD = "s3cr3t/p@ss%word"
"""Of the user `guest`, with what a URL has to encode."""
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
}
_TEMPLATE = "maintainer_template"
_numbers = count(1)


def require_postgresql() -> None:
    """Skip the test where PostgreSQL is not installed; CI must have it."""
    if _find_program("initdb") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed, and CI must not go without it")
        pytest.skip("PostgreSQL is not installed")


def _find_program(name: str) -> str | None:
    """Find a program of the server; Debian puts the newest of them outside the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: p.parts[4])
    return shutil.which(name) or (str(found[-1]) if found else None)


class Server:
    """A server, which ends with the tests' process."""

    def __init__(self) -> None:
        memory = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="maintainer-postgresql-", dir=memory))
        self._user = _NOBODY if os.geteuid() == 0 else os.geteuid()
        os.chown(self.folder, self._user, -1)
        self.port = free_port()
        atexit.register(self._remove)
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-A", "trust", "-U", "owner", "-E", "UTF8", "--no-sync")
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.folder / "data/pg_hba.conf").write_text(rules)
        self.start()

    def start(self) -> None:
        """Start it; it listens on a socket in its folder, and on loopback."""
        settings = _SETTINGS | {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        options = " ".join(f"-c {key}={value}" for key, value in settings.items())
        log = str(self.folder / "log")
        data = str(self.folder / "data")
        self._run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it at once; whoever is connected loses the connection."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        found = _find_program(program)
        assert found
        done = subprocess.run(
            [found, *arguments],
            user=self._user if os.geteuid() == 0 else None,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if program == "initdb" else subprocess.DEVNULL,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout or (self.folder / "log").read_text()

    def _remove(self) -> None:
        if (self.folder / "data/postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str) -> str:
        """Return the URL of a database, for its owner."""
        return f"postgresql+psycopg://owner@/{name}?host={self.folder}&port={self.port}"

    def loopback_url(self, name: str, user: str, password: str) -> str:
        """Return the URL of a database, for a user with a password."""
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str | sql.Composed, database: str = "postgres") -> None:
        """Execute a statement as its owner."""
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            connection.execute(statement)

    def ask(self, query: LiteralString, *parameters: str) -> list[tuple[Any, ...]]:
        """Ask something as its owner."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            return connection.execute(query, parameters).fetchall()

    def conninfo(self, database: str) -> str:
        """Return what its owner connects with, other than Maintainer does."""
        return f"host={self.folder} port={self.port} user=owner dbname={database}"


@cache
def server() -> Server:
    """Return the server of this process, which is started when a test first needs it."""
    require_postgresql()
    return Server()


def create_database(*, empty: bool = False) -> str:
    """Create a database; return its URL. It is at the newest revision, or without any table."""
    name = f"graph_{next(_numbers)}"
    template = "template0" if empty else _template()
    server().execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return server().url(name)


def empty_database(url: str) -> None:
    """Forget everything in a database."""
    with opened(url) as database, database.begin() as connection:
        tables = ", ".join(METADATA.tables)
        connection.exec_driver_sql(f"TRUNCATE {tables} RESTART IDENTITY")


@cache
def _template() -> str:
    server().execute(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0")
    database = Database(server().url(_TEMPLATE))
    database.upgrade()
    database.close()
    return _TEMPLATE


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """Open a database, as a command does."""
    database = Database(url)
    try:
        yield database
    finally:
        database.close()
