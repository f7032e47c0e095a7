"""The state of one repository's cache, without any protocol."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from maintainer.clock import now_utc
from maintainer.emulator.repository import Repository
from maintainer.emulator.uploads import Upload

DEFAULT_QUOTA = 10 * 1024**3
"""Bytes; GitHub's default for every repository."""
RETENTION_DAYS = 7
_VERSION = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2"  # BuildKit's

Clock = Callable[[], datetime]


class KeyTakenError(Exception):
    """The key is already written or reserved."""


class NotReservedError(Exception):
    """There is no unfinished upload for this key."""


class WrongSizeError(Exception):
    """The uploaded content does not have the size that the client states."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; a later state of it is another value with the same id."""

    id: int
    ref: str
    key: str
    version: str
    size: int
    """Bytes."""
    created_at: datetime
    last_accessed_at: datetime
    content: bytes | None = field(repr=False)
    """None if only the size is known: it then reads as zeros."""
    lost: bool = False
    """Whether its content is lost: the entry is found, but cannot be downloaded."""

    def read(self, start: int, stop: int, *, at_once: int = 1024**2) -> Iterator[bytes]:
        """Yield the bytes from `start` to `stop`, in pieces of at most `at_once`."""
        for position in range(start, stop, at_once):
            end = min(position + at_once, stop)
            yield bytes(end - position) if self.content is None else self.content[position:end]


_Place = tuple[str, str, str]  # ref, key, version


class ActionsCache:
    """Entries and reserved keys. Not thread-safe."""

    def __init__(self, *, clock: Clock = now_utc, quota: int = DEFAULT_QUOTA) -> None:
        self.lists_tags_below_heads = False
        """Whether the list spells the ref of a tag `refs/heads/refs/tags/…`, as GitHub's may."""
        self.clock = clock
        self.quota = quota
        """Bytes; above it the least recently used entries are evicted, as on GitHub."""
        self.retention_days = RETENTION_DAYS
        """As the REST API reports it; here nothing expires."""
        self.repository = Repository()
        """Its pull requests, branches and tags."""
        self._entries: dict[int, Entry] = {}
        self._places: dict[_Place, int] = {}
        self._uploads: dict[int, Upload] = {}
        self._reserved: dict[_Place, int] = {}
        self._last_id = 0

    def entries(self) -> list[Entry]:
        """List all entries by id."""
        return [self._entries[entry_id] for entry_id in sorted(self._entries)]

    @property
    def usage(self) -> int:
        """The size of all entries, in bytes."""
        return sum(entry.size for entry in self._entries.values())

    @property
    def reserved(self) -> list[tuple[str, str]]:
        """The reference and key of each upload that is not finished."""
        return [(upload.ref, upload.key) for upload in self._uploads.values()]

    def get(self, entry_id: int) -> Entry | None:
        """Return an entry by its id."""
        return self._entries.get(entry_id)

    def upload(self, upload_id: int) -> Upload | None:
        """Return an unfinished upload; its id becomes the id of the entry."""
        return self._uploads.get(upload_id)

    def put(
        self,
        key: str,
        content: bytes | None = None,
        *,
        ref: str,
        size: int | None = None,
        version: str = _VERSION,
        created_at: datetime | None = None,
        last_accessed_at: datetime | None = None,
    ) -> Entry:
        """Add an entry, as if it had been written at that time; this evicts nothing.

        Raises KeyTakenError.
        """
        self._check_free((ref, key, version))
        created_at = created_at or self.clock()
        return self._add(
            Entry(
                id=self._next_id(),
                ref=ref,
                key=key,
                version=version,
                size=len(content or b"") if size is None else size,
                created_at=created_at,
                last_accessed_at=last_accessed_at or created_at,
                content=b"" if content is None and size is None else content,
            )
        )

    def look_up(
        self, refs: Sequence[str], key: str, restore_keys: Iterable[str], version: str
    ) -> Entry | None:
        """Find an entry as GitHub does, and record its use.

        In each ref in turn: `key` itself; then, for each restore key in turn, the entry that was
        created last among those whose keys start with it.
        """
        prefixes = list(restore_keys)
        for ref in refs:
            found = self._find(ref, key, prefixes, version)
            if found:
                used = replace(found, last_accessed_at=self.clock())
                self._entries[used.id] = used
                return used
        return None

    def _find(self, ref: str, key: str, prefixes: list[str], version: str) -> Entry | None:
        if exact := self._places.get((ref, key, version)):
            return self._entries[exact]
        for prefix in prefixes:
            matches = (
                entry
                for entry in self._entries.values()
                if entry.ref == ref and entry.version == version and entry.key.startswith(prefix)
            )
            if newest := max(matches, key=lambda e: (e.created_at, e.id), default=None):
                return newest
        return None

    def reserve(self, ref: str, key: str, version: str) -> Upload:
        """Lock a key until its upload is finished, if ever. Raises KeyTakenError."""
        self._check_free((ref, key, version))
        upload = Upload(self._next_id(), ref, key, version)
        self._uploads[upload.id] = upload
        self._reserved[ref, key, version] = upload.id
        return upload

    def find_upload(self, ref: str, key: str, version: str) -> Upload:
        """Return the unfinished upload for a key. Raises NotReservedError."""
        upload_id = self._reserved.get((ref, key, version))
        if upload_id is None:
            raise NotReservedError
        return self._uploads[upload_id]

    def finalize(self, upload: Upload, size: int) -> Entry:
        """Turn an upload into an entry, then evict what exceeds the quota.

        Raises WrongSizeError if it has not `size` bytes; the key then stays reserved.
        """
        content = upload.assemble()
        if content is None or len(content) != size:
            raise WrongSizeError
        del self._uploads[upload.id]
        del self._reserved[upload.ref, upload.key, upload.version]
        now = self.clock()
        entry = self._add(
            Entry(upload.id, upload.ref, upload.key, upload.version, size, now, now, content)
        )
        self._keep_quota()
        return entry

    def evict(self, entry_id: int) -> bool:
        """Remove an entry; False if there is none."""
        entry = self._entries.pop(entry_id, None)
        if entry is None:
            return False
        del self._places[entry.ref, entry.key, entry.version]
        return True

    def lose(self, entry_id: int) -> bool:
        """Lose the content of an entry, which is still listed and found; False if there is none."""
        entry = self._entries.get(entry_id)
        if entry is None:
            return False
        self._entries[entry_id] = replace(entry, lost=True)
        return True

    def clear(self, *, restart_ids: bool = False) -> None:
        """Forget all entries and uploads; ids are not reused, unless `restart_ids` is given."""
        if restart_ids:
            self._last_id = 0
        self._entries.clear()
        self._places.clear()
        self._uploads.clear()
        self._reserved.clear()

    def _keep_quota(self) -> None:
        excess = self.usage - self.quota
        for entry in sorted(self._entries.values(), key=lambda e: (e.last_accessed_at, e.id)):
            if excess <= 0:
                break
            self.evict(entry.id)
            excess -= entry.size

    def _check_free(self, place: _Place) -> None:
        if place in self._places or place in self._reserved:
            raise KeyTakenError

    def _add(self, entry: Entry) -> Entry:
        self._entries[entry.id] = entry
        self._places[entry.ref, entry.key, entry.version] = entry.id
        return entry

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id
