"""What a store can do, and what it reports besides its entries. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from maintainer.cacheconfig import Digest, IndexId, Ref
from maintainer.model.index import BrokenTag
from maintainer.model.reason import ClosedRef, Note, Reason


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a store can do. The rest of the program checks these, never which store it is."""

    lists: bool = True
    """Whether it can list its entries."""
    deletes: bool = True
    reads: bool = True
    """Whether it can look up, read and write entries."""
    numbered: bool = False
    """Whether an index is a series of numbered generations; otherwise it has a name."""
    noun: str = "store"
    """What people call it: a directory, a service."""
    noun_of_name: str = "tag"
    """What people call the name of an index, where indexes have names."""
    evicted_by: str | None = None
    """Who evicts entries automatically, for sentences; None if nobody does."""
    shows_exports: bool = False
    """Whether `activity` or `delete` sees an export in progress; otherwise young unreferenced blobs
    show it.
    """
    excludes_exports: bool = False
    """Whether no export can end between a check and the deletion that it allows; otherwise a run
    checks again after the sweep.
    """
    looks_cheaply: bool = False
    """Whether all blobs are checked for existence, and not only uncertain ones."""
    checks_contents: bool = False
    """Whether an existing entry may have no content, so that contents must be checked."""
    writes_together: bool = False
    """Whether all indexes are written in one step."""
    max_concurrent_writes: int = 1
    """How many writes may be concurrent."""
    requests_to_write: int = 0
    """The requests that writing an index takes without interference."""
    deletions_a_minute: int | None = None
    """How many entries may be deleted per minute; None if there is no limit."""
    max_concurrent_deletions: int = 1
    """How many deletions may be concurrent."""
    max_refusals: int | None = None
    """How many single refusals end a sweep that has deleted nothing: the run may delete none. None
    if they cost no requests.
    """
    least_grace: timedelta = timedelta(0)
    """How long a build may rely on a blob without a sign of it. A grace period is never shorter."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """Facts that only some stores report; empty by default."""

    quiet_since: datetime | None = None
    """When an index was last replaced: until then, any blob may have been in use."""
    unseen_for: timedelta = timedelta(0)
    """How long after its last use builds may use an entry again without a sign of it."""
    manifest_blobs: Mapping[Digest, frozenset[IndexId]] = field(default_factory=dict)
    """The blobs that contain an index itself, and which index."""
    pinned: Mapping[Digest, Reason] = field(default_factory=dict)
    """The blobs that something else needs, and why."""
    others: frozenset[IndexId] = frozenset()
    """The names that something else than a cache uses."""
    leaves_out: bool = False
    """Whether names are there that the settings leave out."""
    copies_times: bool = False
    """Whether what is new may have the time of what it was copied from."""
    is_searched: bool = False
    """Whether only those indexes were found that somebody named: others may exist."""
    recent_roots: frozenset[Digest] = frozenset()
    """The blobs that replaced indexes may have needed since the last run."""
    broken: tuple[BrokenTag, ...] = ()
    """The names without a readable manifest."""
    index_limit: int | None = None
    """Bytes of the largest index that importers read; None if they read any."""
    closed_refs: Mapping[Ref, ClosedRef] = field(default_factory=dict)
    """The refs that the token cannot read, and that no build reads any more, and why not."""
    notes: tuple[Note, ...] = ()
    """What the store could not find out."""
    index_prefix: str = ""
    """What the keys of names begin with, where indexes are entries with keys."""


NO_FACTS = StoreFacts()
"""The report of a store that reports nothing."""
