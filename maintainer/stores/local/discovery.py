"""Finds directories that builds export to, by a pattern."""

import os
from collections.abc import AsyncIterator, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from maintainer.errors import SettingError, StoreError
from maintainer.model.discovery import FoundCache
from maintainer.sanitize import printable
from maintainer.settings import DiscoverSettings, Settings, TargetSettings
from maintainer.stores.discovery import WILDCARD, Discoverer

_PREFIX = "local:"
_SIGNS = ("index.json", "blobs")
"""What an export makes: a directory with one of them is a cache."""


def _source(table: DiscoverSettings) -> tuple[str, ...]:
    parts = _pattern(table).parts
    if not any(map(WILDCARD.search, parts)):
        raise SettingError(
            f"store in [[discover]] {table.name}",
            "must be a pattern such as local:/var/cache/builds/*; a single directory is a target",
        )
    if "**" in parts:
        raise SettingError(
            f"store in [[discover]] {table.name}",
            "** is not supported: * matches one level, so use */*",
        )
    return (table.store,)


def _pattern(table: DiscoverSettings) -> Path:
    return Path(table.store.removeprefix(_PREFIX))


async def _search(table: DiscoverSettings) -> AsyncIterator[FoundCache]:
    parts = _pattern(table).parts
    first = _first_wildcard(parts)
    walk = _Walk(parts[first:])
    for path, name in walk.below(Path(*parts[:first]), 0, ()):
        yield FoundCache("/".join(name), f"{_PREFIX}{path}")
    if walk.problem:
        raise StoreError(walk.problem)


def _first_wildcard(parts: tuple[str, ...]) -> int:
    return next(number for number, part in enumerate(parts) if WILDCARD.search(part))


def true_path(settings: Settings, target: TargetSettings | None) -> Path | None:
    """Return the only directory that a target may be if a pattern has found it; else None.

    Since then, others may have put a symbolic link to another cache in its place.
    """
    if target is None or any(one.name == target.name for one in settings.targets):
        return None
    for table in settings.discover:
        if target.name.startswith(f"{table.name}."):
            first = _first_wildcard(_pattern(table).parts)
            parts = Path(target.store.removeprefix(_PREFIX)).parts
            return Path(os.path.realpath(Path(*parts[:first])), *parts[first:])
    return None


class _Walk:
    """Finds what a pattern matches. Symbolic links are not followed: others may make them."""

    def __init__(self, parts: tuple[str, ...]) -> None:
        self._parts = parts
        self.problem = ""
        """The first directory that could not be read, and why."""

    def below(
        self, base: Path, depth: int, name: tuple[str, ...]
    ) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Yield the caches below a directory, each with what the wildcards stand for."""
        if depth == len(self._parts):
            if self._is_cache(base):
                yield base, name
            return
        part = self._parts[depth]
        for inner in self._matching(base, depth):
            more = (inner,) if WILDCARD.search(part) else ()
            yield from self.below(base / inner, depth + 1, name + more)

    def _matching(self, base: Path, depth: int) -> list[str]:
        """Return the names of the directories in a directory that a part of the pattern matches."""
        part = self._parts[depth]
        try:
            with os.scandir(base) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if fnmatchcase(entry.name, part)
                    and (part.startswith(".") or not entry.name.startswith("."))
                    and entry.is_dir(follow_symlinks=False)
                )
        except OSError as error:
            if depth == 0 or not isinstance(error, FileNotFoundError):
                self._note(base, error)
            return []  # One that is missing now was removed concurrently.

    def _is_cache(self, path: Path) -> bool:
        for sign in _SIGNS:
            try:
                (path / sign).lstat()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._note(path, error)
                return False
            return True
        return False

    def _note(self, path: Path, error: OSError) -> None:
        why = error.strerror or type(error).__name__
        self.problem = self.problem or f"{printable(str(path))} cannot be read: {why}"


DIRECTORIES = Discoverer(_source, _search)
