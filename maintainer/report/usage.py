"""Where the space of a cache goes, as its list of entries shows it: no index is read. Pure."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from maintainer.cacheconfig import IndexKey, Ref
from maintainer.mark import Marker
from maintainer.model.decision import DeleteEntry, Rules
from maintainer.model.entry import Access, KnownEntry, StoredEntry, StoreLimits, in_batches
from maintainer.model.limits import ToolRule
from maintainer.model.marks import Marks
from maintainer.model.reason import ClosedRef, NotMarked
from maintainer.model.snapshot import Snapshot
from maintainer.model.store import StoreFacts
from maintainer.plan import TOOLS, Planner
from maintainer.policy.context import PlanContext
from maintainer.report.reasons import format_reason
from maintainer.report.space import tool_of

SCHEMA_VERSION: Final = 1
BUILDKIT = "BuildKit"
RefKind = Literal["pull requests", "branches", "tags", "other refs"]

_BATCH = 5_000
_NO_RULES = Rules(grace=timedelta(0))
_TOOLS = 10
"""Rules are suggested for at most so many tools: those that take the most space."""
_KEEP_NEWEST = 2
_UNUSED_DAYS = 5
"""GitHub evicts unused entries after seven days."""
_KINDS: dict[str, RefKind] = {"pull": "pull requests", "heads": "branches", "tags": "tags"}


class UsagePart(msgspec.Struct, frozen=True):
    """What some entries take together."""

    name: str
    entries: int
    size: int
    """Bytes."""
    last_used_at: datetime


class UsageRef(UsagePart, frozen=True):
    """What the entries of one ref take."""

    closed: str = ""
    """Why no build reads them any more, if so."""


class UsagePolicy(msgspec.Struct, frozen=True):
    """What a policy would delete now."""

    table: Literal["room", "room.rules"]
    settings: tuple[str, ...]
    """Lines of that table that turn it on."""
    entries: int
    size: int
    """Bytes."""

    @property
    def name(self) -> str:
        """The settings in one line."""
        return f"[{self.table}] " + ", ".join(self.settings)


class Usage(msgspec.Struct, frozen=True):
    """Where the space goes. In each division, the largest part comes first."""

    target: str
    at: datetime
    quota: int | None
    """Bytes, above which the store evicts; None if nothing limits the cache."""
    quota_is_assumed: bool
    entries: int
    used: int
    """Bytes."""
    kinds: tuple[UsagePart, ...]
    """By kind of ref: pull requests, branches, tags."""
    refs: tuple[UsageRef, ...]
    tools: tuple[UsagePart, ...]
    """By tool: BuildKit, and the beginnings of other tools' keys."""
    scopes: tuple[UsagePart, ...]
    """By scope of BuildKit's: its indexes only, as scopes share layers."""
    policies: tuple[UsagePolicy, ...]
    """What would free space, each on its own: several may name the same entries."""
    notes: tuple[str, ...] = ()
    """What could not be found out."""
    schema: int = SCHEMA_VERSION


def measure(
    target: str,
    entries: Iterable[StoredEntry],
    facts: StoreFacts,
    limits: StoreLimits,
    now: datetime,
) -> Usage:
    """Return where the space goes; `entries` are read several times."""
    refs = _divide(entries, lambda one: one.ref)
    kinds = _divide(entries, lambda one: _kind_of(one.ref))
    tools = _divide(entries, _tool_of)
    scopes = _divide(entries, _scope_of)
    closed = facts.closed_refs
    policies = _Policies(entries, facts, now)
    return Usage(
        target=target,
        at=now,
        quota=limits.quota,
        quota_is_assumed=limits.is_assumed,
        entries=sum(part.entries for part in refs),
        used=sum(part.size for part in refs),
        kinds=kinds,
        refs=tuple(_with_evidence(part, closed) for part in refs),
        tools=tools,
        scopes=scopes,
        policies=tuple(policies.worth_it([one.name for one in tools if one.name != BUILDKIT])),
        notes=tuple(format_reason(note) for note in facts.notes),
    )


def _divide(
    entries: Iterable[StoredEntry], name_of: Callable[[StoredEntry], str | None]
) -> tuple[UsagePart, ...]:
    """Add up the entries of each name, the largest first."""
    parts: dict[str, tuple[int, int, datetime]] = {}
    for entry in entries:
        name = name_of(entry)
        if name is None:
            continue
        used_at = max(entry.created_at, entry.last_accessed_at)
        count, size, last = parts.get(name, (0, 0, used_at))
        parts[name] = count + 1, size + entry.size, max(last, used_at)
    found = (UsagePart(name, *part) for name, part in parts.items())
    return tuple(sorted(found, key=lambda part: (-part.size, part.name)))


def _with_evidence(part: UsagePart, closed: Mapping[Ref, ClosedRef]) -> UsageRef:
    reason = closed.get(Ref(part.name))
    why = "" if reason is None else format_reason(reason)
    return UsageRef(part.name, part.entries, part.size, part.last_used_at, why)


def _kind_of(ref: str) -> str:
    first, _, rest = ref.partition("/")
    return _KINDS.get(rest.partition("/")[0], "other refs") if first == "refs" else "other refs"


def _tool_of(entry: StoredEntry) -> str:
    return tool_of(entry.key) if entry.parsed is None else BUILDKIT


def _scope_of(entry: StoredEntry) -> str | None:
    return entry.parsed.scope if isinstance(entry.parsed, IndexKey) else None


class _Policies:
    """What policies would free, by the same functions by which runs decide."""

    def __init__(self, entries: Iterable[StoredEntry], facts: StoreFacts, now: datetime) -> None:
        self._entries = entries
        # Nothing is read here, so what BuildKit has stored is out of reach of every other policy.
        snapshot = Snapshot(
            now=now,
            access=Access(),
            entries=(),
            generations=(),
            unread=(),
            live_blobs=frozenset(),
            read_by_builders={},
            listing_complete=True,
            facts=facts,
        )
        self._marks = Marks(snapshot, (), (), ())
        # A run leaves to `closed_refs` what is in a closed ref; with a rule alone, nothing is.
        open_refs = replace(facts, closed_refs={})
        self._with_rules = Marks(replace(snapshot, facts=open_refs), (), (), ())

    def worth_it(self, tools: Iterable[str]) -> Iterator[UsagePolicy]:
        """Return the policies that would free anything, the most first."""
        found = [self._closed_refs()]
        for tool in [one for one in tools if one][:_TOOLS]:
            name = f"prefix = {json.dumps(tool, ensure_ascii=False)}"
            days = timedelta(days=_UNUSED_DAYS)
            newest = ToolRule(tool, keep_newest=_KEEP_NEWEST)
            found.append(self._rule(newest, (name, f"keep_newest = {_KEEP_NEWEST}")))
            unused = ToolRule(tool, unused_for=days)
            found.append(self._rule(unused, (name, f'unused_for = "{_UNUSED_DAYS}d"')))
        return iter(sorted((one for one in found if one.entries), key=lambda one: -one.size))

    def _closed_refs(self) -> UsagePolicy:
        planner, marker = Planner(self._marks, _NO_RULES), Marker(self._marks.snapshot, ())
        freed: list[int] = []
        for batch in in_batches(self._entries, _BATCH):
            plan = planner.plan(marker.mark(_known(one)) for one in batch)
            freed += [one.entry.size for one in plan.deletes]
        return UsagePolicy("room", ("closed_refs = true",), len(freed), sum(freed))

    def _rule(self, rule: ToolRule, settings: tuple[str, ...]) -> UsagePolicy:
        context = PlanContext.of(self._with_rules, replace(_NO_RULES, tools=(rule,)))
        others = (_known(one) for one in self._entries if one.key.startswith(rule.prefix))
        decisions = TOOLS.select(others, context).values()
        freed = [one.entry.size for one in decisions if isinstance(one, DeleteEntry)]
        return UsagePolicy("room.rules", settings, len(freed), sum(freed))


def _known(entry: StoredEntry) -> KnownEntry:
    """Return an entry as a run knows it that sees it for the first time."""
    return KnownEntry(
        store_id=entry.id,
        ref=entry.ref,
        key=entry.key,
        parsed=entry.parsed,
        size=entry.size,
        created_at=entry.created_at,
        last_accessed_at=entry.last_accessed_at,
        known_before=False,
        unreferenced_since=None,
        state="",
        reason=NotMarked(),
    )
