"""An index is written if builds could use more than its newest generation contains, or if that
references missing blobs. The run writes the merge of all its generations, without missing blobs.
"""

import msgspec

from maintainer.cacheconfig import (
    MAX_GENERATION,
    MAX_KEY_LENGTH,
    CacheConfig,
    encode,
    loses_links,
    merge,
    parse_key,
    why_too_large,
    with_sink,
)
from maintainer.model import reason as reasons
from maintainer.model.decision import Keep, WriteIndex
from maintainer.model.index import KnownGeneration
from maintainer.model.marks import Index
from maintainer.model.reason import Reason, WriteReason
from maintainer.model.snapshot import Snapshot
from maintainer.policy.context import PlanContext

NAME = "merging"


def decide(index: Index, context: PlanContext) -> WriteIndex | Keep:
    """Return how to write an index and why, or why it stays unchanged."""
    if why_never := _why_never(index):
        return Keep(str(index.id), index.id.ref, why_never)
    reason = _why_write(index, context)
    if reason is None:
        return Keep(str(index.id), index.id.ref, _up_to_date(index, context.snapshot))
    if veto := _find_veto(index, reason, context):
        return Keep(str(index.id), index.id.ref, veto)
    key = index.id.key(index.highest + 1)
    reason = msgspec.structs.replace(
        reason, omitted=index.omitted, max_merge_size=_limit(index, context.snapshot)
    )
    return WriteIndex(index.id, key, index.merged, reason, index.sink)


def _why_never(index: Index) -> Reason | None:
    if index.id.signed:
        return reasons.Signed()
    if index.used_by_builds:
        return reasons.UsedByBuilds(index.used_by_builds, index.id.is_named)
    return None


def _find_veto(index: Index, reason: WriteReason, context: PlanContext) -> Reason | None:
    """Return why an index is not written although there is a reason to write it."""
    if context.rules.repair and not index.is_broken(context.snapshot.live_blobs):
        return reasons.NotBroken(reason)
    if index.unread and index.newest is None:
        return reasons.NewestUnread(index.unread[-1].why)
    if index.id.ref not in context.snapshot.access.writable:
        return reasons.NotWritable(index.id.ref, reason)
    return _why_it_cannot_be(index, context)


def _why_it_cannot_be(index: Index, context: PlanContext) -> Reason | None:
    if index.highest >= MAX_GENERATION:
        return reasons.NumbersExhausted()
    key = str(index.id.key(index.highest + 1))
    if not index.id.is_named and parse_key(key) is None:
        return reasons.KeyTooLong(len(key), MAX_KEY_LENGTH)
    if context.rules.max_index_size and not index.id.is_named:
        content = encode(with_sink(index.merged, index.sink))
        problem = why_too_large(content, context.rules.max_index_size)
        return reasons.TooLarge(problem, len(content)) if problem else None
    return None


def _why_write(index: Index, context: PlanContext) -> WriteReason | None:
    newest = index.newest
    if newest is None:
        if index.unread:
            return reasons.MergeGenerations()
        if not index.merged.records:
            return None
        if index.is_merge:
            return reasons.MergeOthers(ref=index.id.ref, others=index.merged_with)
        return reasons.Restore(results=index.merged.result_count)
    if newest.violation is not None:
        number = None if index.id.is_named else newest.number
        return reasons.Invalid(violation=newest.violation, generation=number)
    return _why_replace(index, newest, newest.config or CacheConfig(), context)


def _why_replace(
    index: Index, newest: KnownGeneration, config: CacheConfig, context: PlanContext
) -> WriteReason | None:
    """Return why a valid newest generation is not what builders need, if so."""
    if config != index.merged and merge([config]) != index.merged:
        if index.is_merge and index.merged_with:
            return _follow_others(index, config)
        if index.is_forgotten:
            return reasons.Forgotten()
        return _merge_or_drop(index, newest, config, context.snapshot)
    if loses_links(index.merged, newest.sink) and context.snapshot.is_read(index.merged):
        return reasons.AddSink()
    return _why_hidden(index.shadowed_by, newest, context) if index.shadowed_by else None


def _why_hidden(shadowed_by: str, newest: KnownGeneration, context: PlanContext) -> WriteReason:
    """Return what shadows the newest generation, or that an incomplete list lacks it."""
    is_listed = newest.store_id is None or newest.last_seen_at in (None, context.now)
    if not is_listed:
        return reasons.Unlisted(key=str(newest.key), shadowed_by=shadowed_by)
    return reasons.Shadowed(by=shadowed_by)


def _up_to_date(index: Index, snapshot: Snapshot) -> Reason:
    if not index.newest:
        return reasons.NothingLeft()
    return reasons.UpToDate(index.id.is_named, index.omitted, _limit(index, snapshot))


def _limit(index: Index, snapshot: Snapshot) -> int | None:
    """Return the setting that leaves no room for what is omitted, if it is not importers' limit."""
    limit, importers = snapshot.max_merge_size, snapshot.facts.index_limit
    return None if not index.omitted or (importers and limit and importers <= limit) else limit


def _follow_others(index: Index, config: CacheConfig) -> reasons.FollowOthers:
    return reasons.FollowOthers(
        ref=index.id.ref,
        others=index.merged_with,
        more=len(index.merged.blobs - config.blobs),
        less=len(config.blobs - index.merged.blobs),
    )


def _merge_or_drop(
    index: Index, newest: KnownGeneration, config: CacheConfig, snapshot: Snapshot
) -> WriteReason:
    others = tuple(one.number for one in index.inputs if one.generation_id != newest.generation_id)
    gone = config.blobs - index.merged.blobs
    broken, leaving = gone & snapshot.broken_blobs, gone & snapshot.departed.keys()
    without_content, missing = len(broken), len(gone - broken - leaving)
    if others:
        return reasons.Merge(
            generations=others,
            into=newest.number,
            without_content=without_content,
            missing=missing,
            leaving=len(leaving - broken),
        )
    if gone:
        return reasons.DropMissing(
            without_content=without_content, missing=missing, leaving=len(leaving - broken)
        )
    if more := index.merged.blobs - config.blobs:
        return reasons.AddAgain(blobs=len(more))
    return reasons.DropUnused()
