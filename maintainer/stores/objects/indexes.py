"""The indexes of a cache in an object storage: one object for each name.

An index is written only if it is still the one that was read.
"""

import logging
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import msgspec

from maintainer import __version__
from maintainer.cacheconfig import NO_REF, IndexId, encode
from maintainer.cacheconfig.keys import is_digest
from maintainer.decoding import JSON_ERRORS, decode_json
from maintainer.errors import BudgetExhaustedError, ChangedError, StoreError, UnreadableError
from maintainer.model import reason as reasons
from maintainer.model.decision import Keep
from maintainer.model.doubt import Cause
from maintainer.model.index import ReadGeneration
from maintainer.sanitize import printable
from maintainer.stores.base import Change, Conflict, Refused, RunContext, Swapped, SwapResult
from maintainer.stores.decoding import read_content
from maintainer.stores.objects.claims import Claims
from maintainer.stores.objects.layout import Layout
from maintainer.stores.objects.requests import Object, Objects, UnsupportedError

log = logging.getLogger(__name__)

NUMBER = 1
"""A name has one index at a time, and keeps no count of them."""


class Indexes:
    """The indexes, as a run has seen and written them."""

    def __init__(self, objects: Objects, layout: Layout, claims: Claims, *, max_size: int) -> None:
        self.known: dict[str, Object] = {}
        """The indexes that the run has read or written, by key."""
        self.ignored: dict[str, Keep] = {}
        """What is stored among the indexes and is none, by key."""
        self.others: dict[str, str] = {}
        """The tags of these, by key."""
        self._objects = objects
        self._layout = layout
        self._claims = claims
        self._limit = max_size
        self._keys: dict[IndexId, str] = {}
        self._is_conditional: bool | None = None

    async def list(self) -> dict[str, Object]:
        """List what may be an index, by key."""
        found: dict[str, Object] = {}
        for prefix in self._layout.manifests:
            async for page in self._objects.list(prefix):
                found |= {one.key: one for one in page if self._may_be_index(one, prefix)}
        names = {self._layout.index_of(key): key for key in found}
        if len(names) < len(found):
            twice = min(found.keys() - names.values())
            raise StoreError(f"{printable(twice)} has the same name as another index: rename it")
        self._keys = names
        return found

    async def list_changed(self) -> Iterator[Object]:
        """List the indexes that builds have written since the run read or wrote them."""
        listed = await self.list()
        return (
            one
            for key, one in listed.items()
            if one.tag not in (tag_of(self.known.get(key)), self.others.get(key))
        )

    def _may_be_index(self, one: Object, prefix: str) -> bool:
        """Whether it is neither a blob nor an empty object, which consoles show as a folder."""
        is_folder = one.key == prefix and not one.size
        if is_folder or self._layout.digest_of(one.key):
            return False
        if is_digest(one.key[-_DIGEST_LENGTH:]):
            # Its indexes would be taken for ours, whose blobs are missing.
            raise StoreError(
                f"under {printable(prefix)} are blobs of another cache: check the prefixes, of "
                f"which none may lead into another cache ({printable(one.key)})"
            )
        return True

    async def read_listed(
        self, listed: Object, *, was_index: bool = False
    ) -> ReadGeneration | None:
        """Read an index that was listed, and know it as it was read: a list may be newer.

        `was_index` is whether runs have read an index there: then it is one that is spoiled, if it
        has no content. Raises UnreadableError, also if it is not there: a service may show it only
        later.
        """
        found = await self._read(listed.key, listed, was_index=was_index)
        if found and found.location:
            self.known[listed.key] = replace(listed, tag=tag_in(found.location))
        elif listed.key not in self.ignored:
            raise UnreadableError(
                Cause.NOT_FOUND, f"{printable(listed.key)} is listed, and not there"
            )
        return found

    async def read(self, key: str) -> ReadGeneration | None:
        """Read an index; None if it is gone, or is no index at all."""
        return await self._read(key, None)

    async def read_changed(self, listed: Object) -> ReadGeneration | None:
        """Read an index that a list shows anew; None if it is no index at all.

        Raises ChangedError if the answer is older than the list, or there is none: then nobody
        knows what the index references.
        """
        found = await self._read(listed.key, listed)
        is_old = found is not None and found.created_at < listed.modified_at
        if is_old or (found is None and listed.key not in self.ignored):
            raise ChangedError(f"a build has written {printable(listed.key)}, which is not shown")
        return found

    async def _read(
        self, key: str, listed: Object | None, *, was_index: bool = False
    ) -> ReadGeneration | None:
        found = await self._objects.get(key, limit=self._limit, is_wanted=_may_be_object)
        if found is None:
            return None
        seen, content = found
        index = self._layout.index_of(key)
        one = None
        is_spoiled = was_index and not content.strip(_NOTHING)
        if is_spoiled or content.lstrip().startswith(_BEGINNING):
            one = read_content(index, NUMBER, content, seen.modified_at, location=place_of(seen))
            if one.config is not None and one.config.records:
                return one
        if listed and not _is_same(listed, seen):
            # A part of it, or a page about an error.
            problem = f"{printable(key)} is another one than the list shows"
            raise UnreadableError(Cause.TRANSIENT, problem)
        if one and (one.config is not None or not _is_manifest(content)):
            return one
        # Writes are atomic, so this is not half of an index: somebody keeps it here.
        self.ignored[key] = Keep(printable(key), NO_REF, reasons.Unrecognized())
        self.others[key] = seen.tag
        self.known.pop(key, None)
        return None

    async def _add_claim(self) -> None:
        """Say where the indexes are; a run that cannot has still written its index."""
        try:
            await self._claims.add()
        except (StoreError, BudgetExhaustedError) as error:
            log.warning("%s", error)

    async def swap(self, change: Change, context: RunContext) -> SwapResult:
        """Write an index over the one that was read."""
        key = self._keys.get(change.index, self._layout.manifests[0] + change.index.scope)
        content = encode(change.stored)
        if self._is_conditional is None:
            self._is_conditional = await self._has_conditions(context)
        if await self._put(key, content, context, over=tag_of(self.known.get(key))):
            await self._add_claim()
            return await self._read_back(change, key, content)
        found = await self._objects.get(key, limit=self._limit)
        if found is None:
            self.known.pop(key, None)
            return Refused(reason=reasons.ManifestGone(f"{printable(key)} was deleted"))
        seen, other = found
        self.known[key] = seen
        return Conflict(
            read_content(change.index, NUMBER, other, seen.modified_at, location=place_of(seen))
        )

    async def _put(
        self, key: str, content: bytes, context: RunContext, *, over: str | None
    ) -> bool:
        """Write an index if nobody else has; the check is ours if the service makes none."""
        if not self._is_conditional and tag_of(await self._objects.head(key)) != over:
            return False
        context.confirm()
        if self._is_conditional:
            return await self._objects.put(key, content, over=over)
        await self._objects.overwrite(key, content)
        return True

    async def _read_back(self, change: Change, key: str, content: bytes) -> SwapResult:
        found = await self._objects.get(key, limit=max(len(content), self._limit))
        if found is None or found[1] != content:
            return Refused(reason=reasons.Exported())
        seen = self.known[key] = found[0]
        place = place_of(seen)
        written = read_content(change.index, NUMBER, content, seen.modified_at, location=place)
        return Swapped(written, {})  # What is stored is what is listed: blobs.

    async def _has_conditions(self, context: RunContext) -> bool:
        """Whether the service keeps to conditions of writes; some ignore them without a word.

        That it does is remembered for a while, of this version; that it does not is tried again.
        """
        now = context.clock()
        tried_at = context.tried.get(_TRIED)
        if tried_at and timedelta(0) <= now - tried_at < _TRUSTED_FOR:
            return True
        if await self._try_conditions():
            context.tried[_TRIED] = now
            return True
        context.tried.pop(_TRIED, None)
        log.warning(
            "%s ignores conditions of writes: a build that exports to a name in the moment in "
            "which it is written loses its export",
            self._layout.name,
        )
        return False

    async def _try_conditions(self) -> bool:
        key = f"{self._layout.prefix}.maintainer-probe-{secrets.token_hex(8)}"
        try:
            return (
                await self._objects.put(key, b"1", over=None)
                and not await self._objects.put(key, b"2", over=None)
                and not await self._objects.put(key, b"3", over=_NO_TAG)
                and await self._objects.put(
                    key, b"4", over=tag_of(await self._objects.head(key)) or _NO_TAG
                )
            )
        except UnsupportedError:
            return False
        finally:
            for problem in (await self._objects.delete({key: None})).values():
                log.warning("%s stays: %s", printable(key), problem)


_NOTHING = b"\0 \t\r\n"
"""What a file consists of that has lost its content."""
_ROUNDED = 2
"""Seconds."""
_BEGINNING = b"{"
"""An index of BuildKit is a JSON object, even if it was spoiled."""
_TRIED = f"conditions of writes, by {__version__}"
_TRUSTED_FOR = timedelta(days=7)
"""The service behind an address may change."""
_DIGEST_LENGTH = len("sha256:") + 64
_NO_TAG = '"00000000000000000000000000000000"'


class _Manifest(msgspec.Struct):
    schemaVersion: int  # noqa: N815 - the name in manifests


def _is_manifest(content: bytes) -> bool:
    """Whether it is a manifest of an image, which lists layers, too: no index has its version."""
    try:
        return bool(decode_json(content, _Manifest).schemaVersion)
    except JSON_ERRORS:
        return False


def _is_same(listed: Object, seen: Object) -> bool:
    """Whether an answer is about what a list shows; some services quote tags in one of them."""
    tags = {one.tag.strip('"') for one in (listed, seen)}
    return len(tags) == 1 and listed.size == seen.size


def _may_be_object(beginning: bytes) -> bool:
    return beginning.lstrip()[:1] in (b"", _BEGINNING)


def place_of(one: Object) -> str:
    """Return what tells a version of an index from all others: its tag, and when it was written.

    The tag alone is that of the content, on many services.
    """
    return f"{one.tag} {int(one.modified_at.timestamp())}"


def tag_in(place: str) -> str:
    """Return the tag."""
    return place.rpartition(" ")[0]


def is_at(place: str | None, one: Object) -> bool:
    """Whether an object is the version that was read; lists may round its time differently."""
    tag, _, at = (place or "").rpartition(" ")
    if tag != one.tag or not at.isdecimal():
        return False
    return abs(int(at) - one.modified_at.timestamp()) <= _ROUNDED


def tag_of(one: Object | None) -> str | None:
    """Return the tag of an object, if there is one."""
    return one.tag if one else None
