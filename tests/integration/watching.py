"""The promises that hold at every step of a run over a directory.

I1: nothing is deleted that a build may be about to use.
I2: an index that is written passes the importer's rules and names only blobs that existed.
I4: nothing of others is deleted or changed; and `index.json` is replaced only under its lock.

A step is an operation on a file, as Python's audit events tell of it before it is done.
"""

import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from tests.integration.directories import World, import_tag
from tests.integration.invariants import ReadIndex, RefusedIndexError

_BLOB = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OURS = re.compile(r"\.maintainer-[0-9a-f]{16}\.tmp|index\.json\.lock", re.ASCII)
_UPLOAD = frozenset({"data", "ref", "startedat", "total", "updatedat"})
_A_DAY = timedelta(days=1)
_STEPS = frozenset({"open", "os.remove", "os.rename", "os.scandir"})

Step = tuple[str, tuple[object, ...]]
_listening: list[Callable[[Step], None]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    # What is done to a directory is done from where it was opened, not by its whole path.
    if _listening and event in _STEPS and "/" not in str(arguments[0]):
        _listening[-1]((event, arguments))


sys.addaudithook(_hear)  # for the life of the process: there is no way to take it back


@contextmanager
def heard(listener: Callable[[Step], None]) -> Iterator[None]:
    """Report every step, except those of the listener itself."""
    busy: list[bool] = []

    def listen(step: Step) -> None:
        if not busy:
            busy.append(True)
            try:
                listener(step)
            finally:
                busy.clear()

    _listening.append(listen)
    try:
        yield
    finally:
        _listening.remove(listen)


@dataclass
class Watcher:
    """Watches runs over one directory, and remembers what tags once led to."""

    world: World
    others: set[str] = field(default_factory=set)
    """Digests of what is not ours."""
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seen: set[str] = set()
        """What was stored when the run began."""
        self._former: list[tuple[ReadIndex, datetime]] = []
        self._current: dict[str, tuple[str, ReadIndex | None]] = {}
        self.look()

    @contextmanager
    def run(self, grace: timedelta, between: Callable[[int], None] | None = None) -> Iterator[None]:
        """Watch a run with this grace period; another one may be under way.

        `between` is told the number of each step before it is done, and may do something else
        first. It comes as builds do, at any time but between the last look and the deletion that it
        allows.
        """
        steps = 0

        def before(step: Step) -> None:
            nonlocal steps
            steps += 1
            self._check(step, grace)
            if between and step[0] != "os.remove":
                between(steps)
                self.look()

        outer, self._seen = self._seen, self._stored()
        with heard(before):
            yield
        self.look(by_run=True)
        self._seen = outer

    def look(self, *, by_run: bool = False) -> None:
        """See what the tags lead to now."""
        current = {}
        for tag, digest in self._tags():
            known = self._current.get(tag)
            if known and known[0] == digest:
                current[tag] = known
                continue
            current[tag] = (digest, self._import(tag, by_run=by_run))
        for tag, (digest, read) in self._current.items():
            if read and current.get(tag, ("", None))[0] != digest:
                self._former.append((read, self.world.now))
        self._current = current

    def _import(self, tag: str, *, by_run: bool) -> ReadIndex | None:
        try:
            read = import_tag(self.world.path, tag)
        except (RefusedIndexError, KeyError, ValueError, OSError) as error:
            if by_run:
                self.problems.append(f"I2: {tag} would be refused: {error!r}")
            return None
        if by_run and (lost := read.blobs - self._seen - self._stored()):
            self.problems.append(f"I2: {tag} names {sorted(lost)}, which were gone")
        return read

    def _check(self, step: Step, grace: timedelta) -> None:
        event, arguments = step
        with suppress(FileNotFoundError):
            self.look(by_run=True)
        if event == "os.remove":
            if arguments[0] in _UPLOAD:
                self._check_upload_deleted(arguments, grace)
                return
            self._check_deleted(str(arguments[0]), grace)
        elif event == "os.rename":
            self._check_renamed(str(arguments[0]), str(arguments[1]))

    def _check_upload_deleted(self, arguments: tuple[object, ...], grace: timedelta) -> None:
        folder = Path(f"/proc/self/fd/{arguments[1]}").readlink()
        if folder.parent != self.world.path / "ingest":
            self.problems.append(f"I4: {folder}/{arguments[0]} was deleted")
            return
        written = (folder / str(arguments[0])).lstat().st_mtime
        if self.world.now.timestamp() - written < max(grace, _A_DAY).total_seconds():
            self.problems.append(f"I1: the upload {folder.name} was deleted, which may go on")

    def _check_deleted(self, name: str, grace: timedelta) -> None:
        if _OURS.fullmatch(name):
            return
        if not _BLOB.fullmatch(name):
            self.problems.append(f"I4: {name} was deleted")
            return
        digest, stored = f"sha256:{name}", self._stored()
        if digest in self.others:
            self.problems.append(f"I4: {digest} was deleted, which an image needs")
        modified = (self.world.blobs / name).stat().st_mtime
        if self.world.now.timestamp() - modified < grace.total_seconds():
            self.problems.append(f"I1: {digest} was deleted younger than the grace period")
        now = [read for _, read in self._current.values() if read]
        lately = [r for r, until in self._former if self.world.now - until < grace]
        if any(read.needs(digest, stored) for read in (*now, *lately)):
            self.problems.append(f"I1: {digest} was deleted, which a tag needs")
        if any(digest == f"sha256:{found[7:]}" for _, found in self._tags()):
            self.problems.append(f"I1: {digest} was deleted, the manifest of a tag")

    def _check_renamed(self, source: str, target: str) -> None:
        if not _OURS.fullmatch(source):
            self.problems.append(f"I4: {source} was renamed")
        if target == "index.json":
            if not _is_locked(self.world.path / "index.json.lock"):
                self.problems.append("I4: index.json is replaced without its lock")
        elif not _BLOB.fullmatch(target):
            self.problems.append(f"I4: {target} was written")

    def _tags(self) -> list[tuple[str, str]]:
        return [(tag, digest) for tag, digest in self.world.names() if digest not in self.others]

    def _stored(self) -> set[str]:
        return set(self.world.stored())


def _is_locked(path: Path) -> bool:
    try:
        number = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False
