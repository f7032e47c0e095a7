"""One report: all that is told of a run, whatever the form. Its JSON names are stable."""

from datetime import datetime

import msgspec


class EntryTotal(msgspec.Struct, frozen=True):
    """How many entries are in one state."""

    state: str
    entries: int
    size: int
    """Bytes."""


class IndexReport(msgspec.Struct, frozen=True):
    """One index before and after."""

    scope: str
    ref: str
    signed: bool
    generations: int
    """Stored when the run began."""
    generations_after: int
    merged_from: tuple[int, ...]
    """The generations that took part, remembered ones too."""
    usable_before: int
    """Cache keys with a result that builders could use when the run began."""
    usable_after: int
    blobs_missing: int
    """Blobs that the newest generation named and that are gone."""
    bytes_usable: int
    """Bytes of the blobs that its live results need, when the run ends."""
    bytes_dangling_before: int
    """Bytes of the stored blobs that its generations name, and that builders had no way to."""
    bytes_dangling_after: int
    written: str | None
    """The key of the generation that was written, or is planned."""
    outcome: str
    reason: str


class ActionReport(msgspec.Struct, frozen=True):
    """Something that was done, or a decision to leave something alone."""

    kind: str
    """`write`, `delete`, or `keep`."""
    subject: str
    """The key, or what the decision is about."""
    ref: str
    reason: str
    outcome: str
    """`planned`, `done`, `gone already`, `kept`, `skipped: …` or `failed: …`."""
    store_id: int | None = None
    size: int | None = None
    """Bytes."""


class RequestReport(msgspec.Struct, frozen=True):
    """What the run asked of the store."""

    counts: dict[str, int]
    """By kind: list, look-up, download, reserve, upload, finalize, delete."""
    retries: int

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.counts.values())


class Report(msgspec.Struct, frozen=True):
    """What a run found, did, and left alone."""

    run: int
    target: str
    version: str
    """Of maintainer."""
    started_at: datetime
    finished_at: datetime
    dry_run: bool
    status: str
    """`done`, `failed` or `interrupted`."""
    problems: tuple[str, ...]
    """What went wrong, or kept the run from doing more; each one line."""
    grace_seconds: int
    readable: tuple[str, ...]
    """The refs that the token reads."""
    writable: tuple[str, ...]
    entries: tuple[EntryTotal, ...]
    """What exists when the run ends, by state."""
    indexes: tuple[IndexReport, ...]
    actions: tuple[ActionReport, ...]
    requests: RequestReport

    @property
    def deleted(self) -> tuple[ActionReport, ...]:
        """What is gone because of this run."""
        gone = ("done", "gone already")
        return tuple(a for a in self.actions if a.kind == "delete" and a.outcome in gone)

    @property
    def bytes_freed(self) -> int:
        """Bytes of what was deleted."""
        return sum(action.size or 0 for action in self.deleted)

    @property
    def indexes_written(self) -> int:
        """How many generations were written and read back."""
        return sum(1 for a in self.actions if a.kind == "write" and a.outcome == "done")

    @property
    def blobs_missing(self) -> int:
        """Blobs that the newest generations named and that are gone."""
        return sum(index.blobs_missing for index in self.indexes)
