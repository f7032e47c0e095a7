"""A directory as a kind of store; what it works with is imported when one is opened."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maintainer.errors import StoreError
from maintainer.sanitize import printable
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.kind import StoreKind
from maintainer.stores.local.discovery import DIRECTORIES, true_path

if TYPE_CHECKING:
    from maintainer.stores.local.directory import Directory


@dataclass(frozen=True, slots=True)
class _Connection:
    """The location of a directory."""

    settings: Settings
    target: TargetSettings | None
    limit = ""
    """Runs share none."""

    @property
    def identity(self) -> tuple[str, ...]:
        """The directory."""
        return (self.settings.store,)

    @asynccontextmanager
    async def open(self, *, hasty: bool = False) -> AsyncIterator["Directory"]:
        """Open the directory."""
        del hasty
        from maintainer.stores.local.directory import open_directory  # noqa: PLC0415

        settings = self.settings
        path = Path(settings.store.removeprefix(f"{LOCAL.name}:"))
        size = settings.max_index_size
        with open_directory(path, max_index_size=size, verify=settings.verify) as directory:
            expected = true_path(settings, self.target)
            if expected and directory.name != f"{LOCAL.name}:{expected}":
                raise StoreError(f"{printable(str(path))} is not followed: it is a symbolic link")
            yield directory


def _connect(settings: Settings, target: TargetSettings | None) -> _Connection:
    return _Connection(settings, target)


def _blobs_of(store: str) -> tuple[str, ...]:
    """Return what all spellings of a directory, and all links to it, have in common."""
    path = Path(store.removeprefix(f"{LOCAL.name}:"))
    with suppress(RuntimeError, ValueError):  # there is no such user, or it has a NUL
        return (LOCAL.name, os.path.realpath(path.expanduser()))
    return (LOCAL.name, str(path))


LOCAL = StoreKind(
    "local",
    form="local:DIR",
    what="a directory, for type=local",
    has_place=True,
    connect=_connect,
    can_be_opened_early=False,
    uses=frozenset({"merged_tag", "verify"}),
    discoverer=DIRECTORIES,
    blobs_of=_blobs_of,
)
