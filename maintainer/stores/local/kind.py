"""A directory as a kind of store; what it works with is imported when one is opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maintainer.settings import Settings, TargetSettings
from maintainer.stores.kind import StoreKind
from maintainer.stores.local.discovery import DIRECTORIES

if TYPE_CHECKING:
    from maintainer.stores.local.directory import Directory


@dataclass(frozen=True, slots=True)
class _Connection:
    """The location of a directory."""

    settings: Settings

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
            yield directory


def _connect(settings: Settings, target: TargetSettings | None) -> _Connection:
    del target
    return _Connection(settings)


LOCAL = StoreKind(
    "local",
    form="local:DIR for the directory DIR",
    has_place=True,
    connect=_connect,
    can_be_opened_early=False,
    verifies=True,
    discoverer=DIRECTORIES,
)
