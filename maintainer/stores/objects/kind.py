"""Kinds of object storages; what they work with is imported when one is opened."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from maintainer.errors import UsageError, how_to_install
from maintainer.model.discovery import FoundCache
from maintainer.settings import DiscoverSettings, Settings, TargetSettings
from maintainer.stores.discovery import Discoverer
from maintainer.stores.kind import StoreKind
from maintainer.stores.objects.discovery import check_pattern, search_folders
from maintainer.stores.objects.layout import Layout

if TYPE_CHECKING:
    from maintainer.stores.objects.requests import Objects
    from maintainer.stores.objects.store import ObjectStore


class Address(Protocol):
    """Where a cache is."""

    @property
    def identity(self) -> tuple[str, ...]:
        """The place of its blobs: two caches must not share it."""

    @property
    def layout(self) -> Layout:
        """Where it keeps what."""


_A = TypeVar("_A", bound=Address)

Open = Callable[[_A], "AbstractAsyncContextManager[Objects]"]
"""Connects to the storage of a cache."""


@dataclass(frozen=True, slots=True)
class ObjectKind(Generic[_A]):
    """What is different about one kind."""

    name: str
    extra: str
    """The optional dependencies."""
    form: str
    what: str
    read: Callable[[str], _A]
    """Reads the setting `store`; raises UsageError."""
    load: Callable[[], Open[_A]]
    """Imports what it works with."""

    @property
    def store_kind(self) -> StoreKind:
        """The declaration."""
        return StoreKind(
            self.name,
            form=self.form,
            what=self.what,
            has_place=True,
            connect=self._connect,
            can_be_opened_early=True,
            discoverer=Discoverer(self._source, self._search),
            blobs_of=lambda store: self.read(store).identity,
            indexes_of=self._indexes_of,
        )

    def _indexes_of(self, store: str) -> list[tuple[str, ...]]:
        address = self.read(store)
        return [(*address.identity[:-1], one) for one in address.layout.manifests]

    def _source(self, table: DiscoverSettings) -> tuple[str, ...]:
        check_pattern(table)
        return (*self.read(table.store).identity, table.store)

    async def _search(self, table: DiscoverSettings) -> AsyncIterator[FoundCache]:
        address = self.read(table.store)
        before = address.layout.prefix.partition("*")[0]
        async with self.open(address) as objects:
            async for one in search_folders(
                table, objects, before, lambda store: self.read(store).layout.manifests[0]
            ):
                yield one

    @asynccontextmanager
    async def open(self, address: _A) -> AsyncIterator["Objects"]:
        """Connect to the storage. Raises UsageError if what that needs is not installed."""
        try:
            connect = self.load()
        except ModuleNotFoundError as error:
            raise UsageError(
                f"a {address.layout.noun} needs the extra {self.extra} ({error.name} is missing): "
                f"{how_to_install(self.extra)}"
            ) from None
        async with connect(address) as objects:
            yield objects

    def _connect(self, settings: Settings, target: TargetSettings | None) -> "_Connection[_A]":
        del target
        address = self.read(settings.store)
        layout = address.layout.naming(settings.merged_tag)
        return _Connection(self, address, layout, settings.max_index_size)


@dataclass(frozen=True, slots=True)
class _Connection(Generic[_A]):
    """The location of a cache."""

    kind: ObjectKind[_A]
    address: _A
    layout: Layout
    max_index_size: int
    limit = ""
    """Runs share none."""

    @property
    def identity(self) -> tuple[str, ...]:
        """The place of its blobs."""
        return self.address.identity

    @asynccontextmanager
    async def open(self, *, hasty: bool = False) -> AsyncIterator["ObjectStore"]:
        """Connect to the storage."""
        del hasty
        from maintainer.stores.objects.store import ObjectStore  # noqa: PLC0415

        async with self.kind.open(self.address) as objects:
            yield ObjectStore(objects, self.layout, max_index_size=self.max_index_size)
