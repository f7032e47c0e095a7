"""The report of a run, the source of every form. Its JSON names are stable."""

from datetime import date, datetime
from typing import Final, Literal

import msgspec

from maintainer.model.outcome import CARRIED_OUT, AlreadyGone, Done, Outcome, Planned
from maintainer.model.reason import ExportInProgress, LeftForRoom, Note, Reason, code_of

SCHEMA_VERSION: Final = 1
"""Increased with every change of the JSON report that may affect a reader."""
ActionKind = Literal["write", "delete", "keep"]


class EntryTotal(msgspec.Struct, frozen=True):
    """How many entries are in one state."""

    state: str
    """The state: `reachable` or `dangling`, for example."""
    entries: int
    """How many entries."""
    size: int
    """Bytes."""


class Verdict(msgspec.Struct, frozen=True):
    """The state of the cache, in one line."""

    level: Literal["good", "attention", "bad"]
    """`good`: there is nothing to do; `attention`: there is; `bad`: the run failed."""
    message: str
    """The state as a sentence."""
    advice: str = ""
    """The one thing to do; empty if there is none."""


Kind = Literal[
    "reachable",
    "due",
    "dangling",
    "superseded",
    "unread",
    "unreadable",
    "foreign",
    "others",
    "free",
]


class SpacePart(msgspec.Struct, frozen=True):
    """A part of what is stored, or of the quota."""

    kind: Kind
    """`due` is what a run would delete; `foreign` is one other tool; `others` are all
    tools that are too small to be listed."""
    name: str
    """Its name; for another tool, the beginning of its keys."""
    entries: int
    """How many entries."""
    size: int
    """Bytes."""


class UsedDay(msgspec.Struct, frozen=True):
    """What exists when the run ends, and was last used on a day (UTC)."""

    day: date | None
    """The day; None for all days before the others."""
    entries: int
    """How many entries."""
    size: int
    """Bytes."""


class NamedSpace(msgspec.Struct, frozen=True):
    """What a ref or a scope takes."""

    name: str
    """The name of the ref or scope; empty for all that are not listed."""
    entries: int
    """How many entries."""
    size: int
    """Bytes."""


class Space(msgspec.Struct, frozen=True):
    """What takes the space at the end of the run."""

    quota: int | None
    """Bytes, above which the store evicts or runs make room; None if nothing limits the cache."""
    used: int
    """Bytes that are stored."""
    parts: tuple[SpacePart, ...]
    """They add up to `used`. If there is a quota, one more follows: what is free."""
    quota_is_assumed: bool = False
    """Whether the quota is unknown, so that GitHub's default is assumed."""
    used_days: tuple[UsedDay, ...] = ()
    """When the entries were last used, without our look-ups; newest first. What a build reads
    counts as used only where the store reports that."""
    refs: tuple[NamedSpace, ...] = ()
    """The refs that take the most, the largest first; those that are not listed are one, the last.
    """
    scopes: tuple[NamedSpace, ...] = ()
    """What the indexes of each scope take, in the same order. The list of entries is enough to know
    it, but not which layers an index references.
    """


class GoneEntry(msgspec.Struct, frozen=True):
    """An entry that is gone and that no run deleted."""

    key: str
    """The key of the entry."""
    ref: str
    """Its ref, such as refs/heads/main; `-` in a store without refs."""
    size: int
    """Bytes."""


class Changes(msgspec.Struct, frozen=True):
    """Changes of the cache since the previous run that no run made."""

    previous_run: int | None = None
    """The number of the previous run; None if this was the first one on the cache."""
    previous_at: datetime | None = None
    """When the previous run began."""
    new_entries: int = 0
    """Entries that this run was the first to see."""
    new_bytes: int = 0
    """Bytes of the new entries."""
    gone_entries: int = 0
    """Entries that are gone since, but that no run deleted: GitHub evicted them, or somebody else
    deleted them."""
    gone_bytes: int = 0
    """Bytes of the entries that are gone."""
    gone_largest: tuple[GoneEntry, ...] = ()
    """The largest of the entries that are gone, the largest first, up to a limit."""


class BrokenTagReport(msgspec.Struct, frozen=True):
    """A tag that builders cannot import, or that the run could not read."""

    name: str
    """The name of the tag."""
    problem: str
    """What is wrong with it, in one line."""
    blocks_sweep: bool = False
    """Whether the run could not read it, so that any blob may be needed."""


class LostBlob(msgspec.Struct, frozen=True):
    """A blob that is gone, and the results lost with it."""

    digest: str
    """The digest of the blob."""
    size: int
    """Bytes, according to the index."""
    results: int
    """The results that need it, unless they also need a missing blob below it."""


class ChainRow(msgspec.Struct, frozen=True):
    """Consecutive layers of a tree without a branch between them."""

    depth: int
    """The number of branches below these layers."""
    digest: str
    """The digest of the largest one."""
    layers: int
    """How many layers."""
    size: int
    """Bytes."""
    share: float
    """Share of all bytes that the results of the index need, 0 to 1."""
    results: int
    """The results whose last layer is one of these layers."""
    needed_by: tuple[str, ...] = ()
    """The scopes that need the largest of them, without merges of others, up to a limit."""
    needed_by_omitted: int = 0
    """How many scopes of `needed_by` are not listed."""


class IndexReport(msgspec.Struct, frozen=True):
    """One index, before and after the run."""

    scope: str
    """The name of the index: its scope, name or tag."""
    ref: str
    """Its ref, such as refs/heads/main; `-` in a store without refs."""
    signed: bool
    """Whether builds sign it: then runs never rewrite it."""
    generations: int
    """Generations that are stored when the run begins."""
    generations_after: int
    """Generations that are stored when the run ends; in a dry run, as planned."""
    merged_from: tuple[int, ...]
    """The generations that were merged, including remembered ones."""
    usable_before: int
    """Cache keys with a result that builders could use when the run began."""
    usable_after: int
    """Cache keys with a result that builders can use when the run ends; in a dry run, as planned.
    """
    blobs_missing: int
    """Blobs that the newest generation referenced and that are gone."""
    bytes_usable: int
    """Bytes of the blobs that its live results need, when the run ends."""
    bytes_dangling_before: int
    """Bytes of the stored blobs that its generations reference but builders could not reach."""
    bytes_dangling_after: int
    """Bytes of the stored blobs that its generations reference but builders cannot reach, when the
    run ends; in a dry run, as planned."""
    written: str | None
    """The key of the generation that was written, or is planned."""
    outcome: Outcome
    """What has come of the decision to write it, or not to."""
    outcome_sentence: str
    """The outcome as a sentence."""
    reason: Reason
    """Why it is written, or not written."""
    sentence: str
    """The reason as a sentence."""
    keys: int = 0
    """Cache keys that are known and lead to something that exists."""
    usable_possible: int | None = None
    """Cache keys with a result whose blobs exist, even if the token cannot write the index."""
    results_lost: int = 0
    """Results that this run dropped because a blob is gone."""
    lost: tuple[LostBlob, ...] = ()
    """The blobs that are gone, the one with the most lost results first, up to a limit."""
    newest_at: datetime | None = None
    """When its newest generation was created; of a tag, when its newest result was made."""
    oldest_at: datetime | None = None
    """When its oldest stored generation was created."""
    chains: tuple[ChainRow, ...] = ()
    """The largest layer chains, as a tree: the parent of a row is the nearest row above it with a
    smaller depth."""
    chains_omitted: int = 0
    """The chains that are too small to be in the tree."""
    bytes_own: int = 0
    """The part of `bytes_usable`, in bytes, that no other index needs, apart from merges of
    others."""
    is_merge: bool = False
    """Whether it holds the merge of all other indexes of its ref, for builds to import."""
    omitted: int = 0
    """Existing results for which it has no room, by `max_merge_size` or importers' limits."""
    used_by_builds: str | None = None
    """The key that a build has exported to an index reserved for such a merge, if so."""
    still_broken: bool = False
    """Whether what builds read is invalid or references missing blobs when the run ends, or, of a
    dry run, would be or would do so."""


class Blocked(msgspec.Struct, frozen=True):
    """The reason why runs delete no blobs."""

    reason: Reason
    """Why, as a value."""
    sentence: str
    """The reason as a sentence."""
    since: datetime
    """When the first of the consecutive runs that deleted none began."""
    cause: str = ""
    """Why an index could not be read, if that is the reason."""

    @property
    def by_export(self) -> bool:
        """Whether it is an export in progress, which may rely on unreferenced blobs."""
        return isinstance(self.reason, ExportInProgress)


class ResultTotals(msgspec.Struct, frozen=True):
    """Cache keys with a result, in all indexes together: a key in several indexes counts once."""

    before: int = 0
    """Results that builders could use when the run began."""
    after: int = 0
    """Results that builders can use when the run ends; in a dry run, as planned."""
    possible: int = 0
    """Results whose blobs exist, even if the token cannot write the indexes."""
    dropped: int = 0
    """Results that builders could use before, but not after, although their blobs exist."""
    lost: int = 0
    """Results that this run dropped from all indexes because a blob is gone."""
    size: int = 0
    """Bytes of the blobs that the results `after` the run need, each counted once."""


class ActionReport(msgspec.Struct, frozen=True):
    """An action, or a decision to keep something."""

    kind: ActionKind
    """What was decided."""
    subject: str
    """The key, or what the decision is about."""
    ref: str
    """Its ref, such as refs/heads/main; `-` in a store without refs."""
    reason: Reason
    """Why it was decided."""
    sentence: str
    """The reason as a sentence."""
    outcome: Outcome
    """Its outcome."""
    outcome_sentence: str
    """The outcome as a sentence."""
    store_id: int | None = None
    """The number of the entry in the store, if it is about one that has a number."""
    size: int | None = None
    """Bytes of the entry or index, if known."""


class ContentReport(msgspec.Struct, frozen=True):
    """The results of checking whether blobs can be downloaded."""

    checked: int = 0
    """Blobs that can be downloaded, or have no content."""
    without_content: int = 0
    """Blobs without content in any entry: they count as gone."""
    unverified: int = 0
    """Blobs whose check was inconclusive; the next run checks them again."""
    deferred: int = 0
    """Checks that were deferred to the next run."""


class ActionTotal(msgspec.Struct, frozen=True):
    """Actions that are too many to be listed; the database has them."""

    kind: str
    """`write`, `delete` or `keep`."""
    outcome: str
    """The code of the outcome."""
    actions: int
    """How many actions."""
    size: int
    """Bytes."""


class RequestReport(msgspec.Struct, frozen=True):
    """The requests that the run sent to the store."""

    counts: dict[str, int]
    """How many, by kind: list, look-up, download, reserve, upload, finalize, delete."""
    retries: int
    """How many requests repeated another one."""

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.counts.values())


class TrendPoint(msgspec.Struct, frozen=True):
    """The cache at the end of a run."""

    run: int
    """The number of the run."""
    at: datetime
    """When the run began."""
    bytes: dict[str, int]
    """Bytes that are stored, by state."""
    usable: int | None
    """Results that builds could use; None if the run could read no index."""


class EvictionDay(msgspec.Struct, frozen=True):
    """Evictions that runs noticed on a day (UTC)."""

    day: date
    """The day."""
    entries: int
    """How many entries."""
    size: int
    """Bytes."""


class Headroom(msgspec.Struct, frozen=True):
    """What is expected to arrive until the next run, by what arrived between runs before."""

    expected: int
    """Bytes that are expected: what was enough nine times out of ten."""
    intervals: int
    """How many intervals between two runs `expected` follows from."""
    expected_before: int | None
    """Bytes that were expected at the run before; None if that was not known."""
    arrived: int
    """Bytes that have arrived since the run before."""


class Trend(msgspec.Struct, frozen=True):
    """How the cache has changed over time, according to the database."""

    points: tuple[TrendPoint, ...] = ()
    """Oldest first; an even selection if there are many runs."""
    runs: int = 0
    """How many runs these points represent."""
    evictions: tuple[EvictionDay, ...] = ()
    """Oldest first; only days with evictions."""
    headroom: Headroom | None = None
    """What is expected to arrive until the next run; None if nobody evicts, nothing was listed, or
    the history is too short."""


class DepartureReport(msgspec.Struct, frozen=True):
    """Results that leave a full cache together, because they need exactly the same layers."""

    digest: str
    """The digest of the topmost layer."""
    results: int
    """How many results."""
    indexes: tuple[str, ...]
    """The indexes that have these results."""
    reason: LeftForRoom
    """Why they leave, as a value."""
    sentence: str
    """The reason as a sentence."""


class RoomReport(msgspec.Struct, frozen=True):
    """How full a cache may be, and what leaves it for that."""

    quota: int
    """Bytes, above which the store evicts or runs make room."""
    limit: int
    """Bytes that the cache may hold, so that enough is free."""
    stored: int
    """Bytes of everything that was stored when the run began."""
    remaining: int
    """Bytes that remain once all has been deleted that leaves, for whatever reason."""
    departures: tuple[DepartureReport, ...] = ()
    """What leaves to make room, in order, up to a limit."""
    departures_omitted: int = 0
    """How many departures are not listed."""
    results: int = 0
    """How many results have left, or would leave in a dry run."""
    held: int = 0
    """How many other results were to leave, and are still in an index that was not written."""
    freed: int = 0
    """Bytes of the blobs that are unreferenced once these results have left."""

    @property
    def keep_free(self) -> int:
        """Bytes that must stay free."""
        return self.quota - self.limit


class NoteReport(msgspec.Struct, frozen=True):
    """Why a run did not do more, although nothing failed."""

    reason: Note
    """Why, as a value."""
    sentence: str
    """The reason as a sentence."""


class StoreReport(msgspec.Struct, frozen=True):
    """What a reader must know about the store of the cache."""

    noun: str = "store"
    """What people call it: a directory, a service."""
    noun_of_name: str = "tag"
    """What people call the name of an index, where indexes have names."""
    evicted_by: str | None = None
    """Who evicts entries automatically; None if nobody does."""
    numbered: bool = False
    """Whether an index has numbered generations; otherwise each build overwrites it by name."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found, did and kept."""

    schema: Literal[1] = SCHEMA_VERSION
    """The version of this schema."""

    run: int
    """The number of the run in its database."""
    target: str
    """The cache: its kind, and where it is."""
    store: StoreReport = StoreReport()
    """What a reader must know about the store."""
    version: str
    """The version of maintainer."""
    started_at: datetime
    """When it began."""
    finished_at: datetime
    """When it ended."""
    dry_run: bool
    """Whether it only planned, and changed nothing."""
    status: str
    """`done`, `failed` or `interrupted`."""
    problems: tuple[str, ...]
    """Errors, and other reasons why the run did not do more; one line each."""
    grace_seconds: int
    """How long something is dangling or superseded before it is deleted, in seconds."""
    readable: tuple[str, ...]
    """The refs that the token reads."""
    writable: tuple[str, ...]
    """The refs that the token writes."""
    entries: tuple[EntryTotal, ...]
    """What exists when the run ends, by state."""
    indexes: tuple[IndexReport, ...]
    """All indexes that the run has seen or remembered."""
    actions: tuple[ActionReport, ...]
    """What was decided and what came of it, in order, up to a limit."""
    requests: RequestReport
    """What was sent to the store."""
    results: ResultTotals = ResultTotals()
    """The results of all indexes together."""
    deletions_a_minute: int | None = None
    """How many entries the store allows to be deleted per minute; None if it has no limit."""
    contents: ContentReport = ContentReport()
    """What was checked by downloading the first byte."""
    blocked: Blocked | None = None
    """Why the run deleted no blobs, if so."""
    notes: tuple[NoteReport, ...] = ()
    """Why the run did not do more, and what to know of the store."""
    verdict: Verdict | None = None
    """The state of the cache, in one line."""
    space: Space | None = None
    """What takes the space; None if the store cannot list its entries."""
    changes: Changes = Changes()
    """What has changed since the previous run, and no run has done."""
    trend: Trend = Trend()
    """How the cache has changed over time. It is not stored with the run, but read from the
    database together with it."""
    more_actions: tuple[ActionTotal, ...] = ()
    """Of a cache with many entries: what else was done or kept."""
    broken_tags: tuple[BrokenTagReport, ...] = ()
    """The tags that builders cannot import, or that the run could not read."""
    indexes_broken: int = 0
    """How many indexes were invalid or referenced missing blobs when the run began."""
    repair: bool = False
    """Whether the run only rewrote what was broken: it merged and deleted nothing."""
    room: RoomReport | None = None
    """What leaves a full cache; None if nothing does, because `keep_free` is not set or the quota
    unknown."""

    @property
    def deletions(self) -> tuple[ActionReport, ...]:
        """The listed deletions, whatever their outcome."""
        return tuple(action for action in self.actions if action.kind == "delete")

    @property
    def deleted(self) -> tuple[ActionReport, ...]:
        """Deletions of this run after which the entry no longer exists."""
        return tuple(action for action in self.deletions if isinstance(action.outcome, CARRIED_OUT))

    @property
    def undeleted(self) -> tuple[ActionReport, ...]:
        """Planned deletions whose entries still exist."""
        return tuple(
            action for action in self.deletions if not isinstance(action.outcome, CARRIED_OUT)
        )

    @property
    def planned_deletions(self) -> ActionTotal:
        """All deletions of the plan, whatever their outcome."""
        listed = self.deletions
        others = [total for total in self.more_actions if total.kind == "delete"]
        size = sum(one.size or 0 for one in listed) + sum(one.size for one in others)
        return ActionTotal("delete", "", len(listed) + sum(t.actions for t in others), size)

    @property
    def tried_to_delete(self) -> bool:
        """Whether the run reached the first deletion of its plan."""
        return bool(self.outcomes_of_deletions - {code_of(Planned())})

    @property
    def outcomes_of_deletions(self) -> set[str]:
        """The codes of the outcomes that deletions had."""
        listed = {code_of(action.outcome) for action in self.deletions}
        return listed | {total.outcome for total in self.more_actions if total.kind == "delete"}

    @property
    def entries_deleted(self) -> int:
        """How many entries are gone because of this run."""
        return self._deletions_with(Done()).actions

    @property
    def bytes_freed(self) -> int:
        """Bytes of the entries that this run has deleted."""
        return self._deletions_with(Done()).size

    @property
    def already_gone(self) -> int:
        """How many entries were gone when the run came to them: it has not freed their bytes."""
        return self._deletions_with(AlreadyGone()).actions

    def _deletions_with(self, outcome: Outcome) -> ActionTotal:
        """Return the totals of the deletions with some outcome."""
        code = code_of(outcome)
        listed = [one for one in self.deletions if one.outcome == outcome]
        more = [one for one in self.more_actions if (one.kind, one.outcome) == ("delete", code)]
        size = sum(one.size or 0 for one in listed) + sum(one.size for one in more)
        return ActionTotal("delete", code, len(listed) + sum(one.actions for one in more), size)

    @property
    def saw_nothing(self) -> bool:
        """Whether the run ended before it knew what is stored, or had a plan.

        Then it reports no refs, and no division of the space. That its budget ended it is no
        failure.
        """
        return not (self.entries or self.readable or self.space)

    @property
    def results_usable(self) -> int:
        """Results that builds can use after the run, each counted once."""
        return self.results.before if self.dry_run else self.results.after

    @property
    def indexes_written(self) -> int:
        """How many generations were written and read back."""
        return sum(1 for a in self.actions if a.kind == "write" and isinstance(a.outcome, Done))

    @property
    def planned_writes(self) -> int:
        """How many indexes were to be written."""
        return sum(1 for action in self.actions if action.kind == "write")

    @property
    def blobs_missing(self) -> int:
        """Blobs that the newest generations referenced and that are gone; each counts in each."""
        return sum(index.blobs_missing for index in self.indexes)
