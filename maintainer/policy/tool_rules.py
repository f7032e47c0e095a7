"""Rules say what another tool may store: how many entries in each ref, for how long after their
last use, and how much in all. What one of these limits excludes is deleted; it is never BuildKit's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from maintainer.cacheconfig import Ref, may_be_buildkits
from maintainer.model.decision import DeleteEntry, Keep
from maintainer.model.entry import KnownEntry
from maintainer.model.limits import ToolRule
from maintainer.model.marks import State
from maintainer.model.reason import BeyondNewest, BeyondSize, Grace, Reason, Unused
from maintainer.policy.context import PlanContext

NAME = "rules of other tools"

_Excluded = Mapping[int, Reason]
"""The entries that a limit excludes, by store id, and why."""


def select(entries: Iterable[KnownEntry], context: PlanContext) -> Mapping[int, DeleteEntry | Keep]:
    """Return the decisions about entries of other tools that depend on each other, by store id."""
    closed, rules = context.snapshot.facts.closed_refs, context.rules.tools
    others = [one for one in entries if _is_of_other_tool(one) and one.ref not in closed]
    keeps: dict[int, Keep] = {}
    deletes: dict[int, DeleteEntry] = {}
    for rule in rules:
        left = [one for one in others if rule.is_about(one.ref, one.key)]
        left = [one for one in left if one.store_id not in deletes]
        for limit in _LIMITS:
            excluded = limit(rule, left, context.now)
            deletes |= {
                one.store_id: DeleteEntry(one, State.FOREIGN, excluded[one.store_id])
                for one in left
                if one.store_id in excluded
            }
            left = [one for one in left if one.store_id not in excluded]
        keeps |= {one.store_id: keep for one in left if (keep := _keep(rule, one))}
    return {**keeps, **deletes}


def _is_of_other_tool(entry: KnownEntry) -> bool:
    """Whether an entry is another tool's, and not BuildKit's of any version."""
    return entry.parsed is None and not may_be_buildkits(entry.key) and entry.can_be_deleted


def _beyond_newest(rule: ToolRule, entries: Sequence[KnownEntry], _now: datetime) -> _Excluded:
    """Exclude all but the entries of each ref that were created last."""
    if rule.keep_newest is None:
        return {}
    reason = BeyondNewest(rule.prefix, rule.keep_newest)
    newer: Counter[Ref] = Counter()
    excluded: dict[int, Reason] = {}
    for one in sorted(entries, key=lambda one: (one.created_at, one.store_id), reverse=True):
        if newer[one.ref] >= rule.keep_newest:
            excluded[one.store_id] = reason
        newer[one.ref] += 1
    return excluded


def _unused(rule: ToolRule, entries: Sequence[KnownEntry], now: datetime) -> _Excluded:
    """Exclude what nobody has used for so long."""
    if rule.unused_for is None:
        return {}
    seconds = int(rule.unused_for.total_seconds())
    return {
        one.store_id: Unused(rule.prefix, seconds, one.last_use_at)
        for one in entries
        if now - one.last_use_at >= rule.unused_for
    }


def _beyond_size(rule: ToolRule, entries: Sequence[KnownEntry], _now: datetime) -> _Excluded:
    """Exclude what was used longest ago, until the others fit."""
    if rule.max_bytes is None:
        return {}
    excess = sum(one.size for one in entries) - rule.max_bytes
    excluded: dict[int, Reason] = {}
    for one in sorted(entries, key=lambda one: (one.last_use_at, one.created_at, one.store_id)):
        if excess <= 0:
            break
        excluded[one.store_id] = BeyondSize(rule.prefix, rule.max_bytes)
        excess -= one.size
    return excluded


_LIMITS: tuple[Callable[[ToolRule, Sequence[KnownEntry], datetime], _Excluded], ...] = (
    _beyond_newest,
    _unused,
    _beyond_size,
)
"""In this order, so that what a limit excludes does not count for the next."""


def _keep(rule: ToolRule, entry: KnownEntry) -> Keep | None:
    """Return until when an entry stays if nobody uses it, if a rule says that."""
    if rule.unused_for is None:
        return None
    since = entry.last_use_at
    return Keep.of(entry, Grace("unused", since, since + rule.unused_for))
