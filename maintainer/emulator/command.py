"""`maintainer emulator`: serve on loopback, until interrupted or as long as a command runs."""

import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from maintainer.emulator.faults import NO_FAULTS, load_faults
from maintainer.emulator.server import LOOPBACK, REPOSITORY, Emulator, Service
from maintainer.emulator.state import DEFAULT_QUOTA, ActionsCache
from maintainer.errors import UsageError
from maintainer.sanitize import printable
from maintainer.signals import STOP, Queue, received

_MAX_PORT = 65_535
_SHELL = 128
"""Shells add this to the number of a signal."""


def run_emulator(
    listen: str,
    quota: int | None = None,
    *,
    ref: str = "refs/heads/main",
    repository: str = "",
    service: Service = "v2",
    faults: Path | None = None,
    history: bool = False,
    closed_pulls: Iterable[int] = (),
    deleted_refs: Iterable[str] = (),
    command: Sequence[str] = (),
) -> int:
    """Serve at `listen` (`127.0.0.1:PORT`), and print what a client on `ref` needs to know.

    With a `command`, run it with these variables instead, serve as long as it runs, and return its
    exit status; it is that of a shell if a signal ended it.

    Without a `repository`, its name contains the time: a database that knows an earlier emulator
    would take this one's empty cache for an outage.

    `history` starts with the recorded builds. Pull requests, branches and tags that are not named
    are open, or exist. `faults` is the file of a fault plan. Ctrl-C and
    SIGTERM end it. Raises UsageError if `listen` is not a free loopback address, the plan is
    invalid, or there is no such command.
    """
    if command and shutil.which(command[0]) is None:
        raise UsageError(f"{printable(command[0])}: there is no such command")
    plan = load_faults(faults) if faults else NO_FAULTS
    host, port = parse_listen(listen)
    cache = ActionsCache(quota=DEFAULT_QUOTA if quota is None else quota)
    if history:
        _fill(cache)
    for number in closed_pulls:
        cache.repository.close(number, cache.clock() - timedelta(days=1))
    for deleted in deleted_refs:
        cache.repository.delete(deleted)
    try:
        emulator = Emulator(cache, host=host, port=port)
    except OSError as error:
        raise UsageError(f"cannot listen on {listen}: {error.strerror}") from None
    emulator.faults.inject(plan)
    name = repository or f"{REPOSITORY}-{cache.clock():%m%d-%H%M%S}"
    environment = emulator.environment(ref, service=service, repository=name)
    with received(*STOP) as signals, emulator.serving():
        if command:
            return _run(command, environment, signals)
        for name, value in environment.items():
            quoted = value.replace("'", r"'\''")
            sys.stdout.write(f"export {name}='{quoted}'\n")
        sys.stdout.flush()
        signals.get()
    return 0


def _run(command: Sequence[str], environment: Mapping[str, str], signals: Queue) -> int:
    """Run a command with more variables; SIGTERM is passed on, and a terminal sends it Ctrl-C."""
    with subprocess.Popen(command, env=os.environ | environment) as process:  # noqa: S603 - the user's own

        def wait() -> None:
            process.wait()
            signals.put(None)

        threading.Thread(target=wait, name="command", daemon=True).start()
        while received := signals.get():
            if received == signal.SIGTERM:
                process.send_signal(received)
    return process.returncode if process.returncode >= 0 else _SHELL - process.returncode


def _fill(cache: ActionsCache) -> None:
    # The demo imports everything; most emulators start without it.
    from maintainer.demo.history import load_history, seed  # noqa: PLC0415

    ends_at = datetime.now(UTC) - timedelta(hours=30)
    seed(cache, load_history(), ends_at=ends_at, lasted=timedelta(days=5))


def parse_listen(listen: str) -> tuple[str, int]:
    """Parse HOST:PORT. Raises UsageError if it is invalid, or not on loopback."""
    host, colon, port_text = listen.rpartition(":")
    host = host.strip("[]").replace("localhost", LOOPBACK)
    try:
        address = ipaddress.ip_address(host)
        port = int(port_text) if port_text.isascii() and port_text.isdigit() else -1
    except ValueError:
        raise UsageError(
            f"{listen!r} is not a valid address; use one such as {LOOPBACK}:8080"
        ) from None
    if not colon or not 0 <= port <= _MAX_PORT:
        raise UsageError(f"{listen!r} is not a valid address; use one such as {LOOPBACK}:8080")
    if not address.is_loopback:
        raise UsageError(f"the emulator only listens on loopback, which {host} is not")
    return host, port
