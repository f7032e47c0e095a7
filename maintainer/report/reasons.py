"""Reasons and outcomes in plain English: the only place that turns them into sentences. Pure."""

from datetime import timedelta
from functools import singledispatch

from maintainer.cacheconfig import NO_REF
from maintainer.cacheconfig.oci import IMPORT_LIMIT
from maintainer.model import outcome as outcomes
from maintainer.model import reason as reasons
from maintainer.model.outcome import Outcome
from maintainer.model.reason import Reason, code_of
from maintainer.report.words import (
    format_count,
    format_duration,
    format_few,
    format_moment,
    format_size,
)

_FEW = 3
"""The maximum number of generations that are listed one by one."""

_WITHOUT_FACTS: dict[type[reasons.Base], str] = {
    reasons.NotMarked: "not marked by any run yet",
    reasons.OtherTool: "it belongs to another tool",
    reasons.NoContent: "its content cannot be downloaded",
    reasons.ReadByBuilds: "builds read it",
    reasons.Signed: "signed indexes are never rewritten",
    reasons.Unread: "it could not be read this time",
    reasons.Evicted: "the store evicted it, or somebody else deleted it",
    reasons.Removed: "something other than a run deleted it",
    reasons.DeletedByUnfinishedRun: "deleted by a run that was cut off",
    reasons.FoundByLookUp: "a look-up found it; it was never listed",
    reasons.Missing: "an index references it, but it does not exist",
    reasons.IncompleteList: "the list of entries was incomplete, so an index may have been missed",
    reasons.DeadlinePassed: "the --deadline has passed",
    reasons.MergeGenerations: "merge its generations",
    reasons.DropUnused: "drop unused keys and results",
    reasons.Forgotten: "drop all of it: its owner had it forgotten (`maintainer forget`)",
    reasons.AddSink: "add the sink record, so that builds find all of it",
    reasons.NothingLeft: "nothing is left of it",
    reasons.NumbersExhausted: "its keys cannot hold a higher number",
    reasons.NotADigest: "ignored: its name is not a digest",
    reasons.NotABlobDirectory: "ignored: it is not a directory of blobs",
    reasons.Damaged: "its content does not match its digest, so it counts as missing",
    reasons.Unrecognized: "ignored",
    reasons.EarlierFailure: "an earlier deletion failed",
    reasons.ReferencedByNewIndex: (
        "a build has written an index that references it since the run began"
    ),
    reasons.LookedUp: "somebody has looked it up since the run began",
    reasons.TooManyUsed: (
        "too many entries were used since the run began to tell whether it was one of them"
    ),
    reasons.Exported: "a build has exported since the run began and may need it",
    reasons.Uploaded: "a build has uploaded but not exported yet, and may be about to need it",
    reasons.WrittenByOtherRun: "another run has written it since this one began",
    reasons.NotACache: "it is no longer a cache",
}


@singledispatch
def format_reason(reason: Reason) -> str:
    """Return a reason as a sentence, without capital letter and full stop."""
    return _WITHOUT_FACTS[type(reason)]


def format_cause(reason: Reason) -> str:
    """Return a reason without the facts that differ from entry to entry.

    So a table can count such entries together: it omits since when they are unreferenced and which
    generation supersedes them.
    """
    match reason:
        case reasons.Superseded() | reasons.Replaced():
            return "superseded by a newer generation"
        case reasons.Unused():
            return _format_unused(reason)
        case reasons.LeftForRoom():
            return "no room for it: builds needed it longest ago for its size"
        case reasons.Overdue():
            return f"dangling: {_format_overdue(reason)}"
        case _:
            return format_reason(reason)


def format_outcome(outcome: Outcome) -> str:
    """Return the outcome of an action as a sentence."""
    match outcome:
        case outcomes.Skipped() | outcomes.Deferred():
            return f"{code_of(outcome)}: {format_reason(outcome.reason)}"
        case outcomes.Failed(problem) | outcomes.Refused(problem):
            return f"{code_of(outcome)}: {problem}"
        case _:
            return code_of(outcome).replace("_", " ")


def _place(index: str, ref: str) -> str:
    return index if ref == NO_REF else f"{index} in {ref}"


# What an entry is.


@format_reason.register
def _(reason: reasons.ForeignKey) -> str:
    return f"builds in {reason.ref} do not write such keys"


@format_reason.register
def _(reason: reasons.UnreadableRef) -> str:
    return f"the token cannot read {reason.ref}"


@format_reason.register
def _(reason: reasons.PullRequestClosed) -> str:
    at = f" on {format_moment(reason.closed_at)}" if reason.closed_at else ""
    return f"pull request {reason.number} was closed{at}, so no build reads it"


@format_reason.register
def _(reason: reasons.RefDeleted) -> str:
    return f"{reason.ref} does not exist any more, so no build reads it"


@format_reason.register
def _(reason: reasons.Needed) -> str:
    return f"{_place(reason.index, reason.ref)} needs it"


@format_reason.register
def _(reason: reasons.NeededByOtherTag) -> str:
    return f"{reason.tag}, which is not a cache, needs it"


@format_reason.register
def _(reason: reasons.NeededByOtherName) -> str:
    return f"{reason.name}, which is not one of the names to maintain, needs it"


@format_reason.register
def _(reason: reasons.Undeletable) -> str:
    return f"the registry does not delete manifests: {reason.problem}"


@format_reason.register
def _(reason: reasons.NeededByDamagedTag) -> str:
    return f"{reason.tag}, whose manifest is damaged, may need it"


@format_reason.register
def _(reason: reasons.Signs) -> str:
    return f"it signs {reason.key}"


@format_reason.register
def _(
    reason: reasons.Unreferenced
    | reasons.ReferencedUntilNow
    | reasons.SignedIndexGone
    | reasons.AbandonedUpload
    | reasons.LeftForRoom
    | reasons.Superseded,
) -> str:
    sentence = _format_overdue(reason)
    if reason.since is None:
        return sentence
    state = "superseded" if isinstance(reason, reasons.Superseded) else "dangling"
    return f"{state} since {format_moment(reason.since)}: {sentence}"


def _format_overdue(reason: reasons.Overdue) -> str:
    match reason:
        case reasons.ReferencedUntilNow():
            place = _place(reason.index, reason.ref)
            return f"{place} referenced it until now, but no live result needs it"
        case reasons.SignedIndexGone():
            return "the index that it signs is gone"
        case reasons.AbandonedUpload():
            return "a killed build left this upload"
        case reasons.Superseded():
            return f"generation {reason.by} is newer"
        case reasons.LeftForRoom():
            return (
                f"no room for it: builds last needed it on {format_moment(reason.needed_at)}, and "
                f"it takes {format_size(reason.size)}; it leaves as number {reason.place}, which "
                f"frees {format_size(reason.freed)}"
            )
        case _:
            return "no live result of any index needs it"


@format_reason.register
def _(reason: reasons.Replaced) -> str:
    what = "manifest" if reason.is_named else "generation"
    return f"superseded by the {what} that this run writes"


# Why an unreferenced entry is kept.


@format_reason.register
def _(reason: reasons.UnreadIndex) -> str:
    return f"{reason.index} could not be read this time and may need it"


@format_reason.register
def _(reason: reasons.StillReferenced) -> str:
    return f"{reason.index} still references it and is not rewritten"


@format_reason.register
def _(reason: reasons.OpaqueIndex) -> str:
    return (
        f"{reason.key} in {reason.ref} is newer, its content is unknown, and it may need this "
        f"until {format_moment(reason.until)}"
    )


@format_reason.register
def _(reason: reasons.Grace) -> str:
    since, until = format_moment(reason.since), format_moment(reason.until)
    return f"{reason.state} since {since}, kept until {until}"


@format_reason.register
def _(reason: reasons.ExportInProgress) -> str:
    return (
        f"deferred to the next run: an export seems to be in progress in {reason.ref} since "
        f"{format_moment(reason.since)}"
    )


@format_reason.register
def _(reason: reasons.IndexNotRewritten) -> str:
    return f"{reason.index} is not rewritten, so this may still be needed"


# Why an index could not be read, and what ends a run early.


@format_reason.register
def _(reason: reasons.Problem) -> str:
    return reason.problem


@format_reason.register
def _(reason: reasons.SameKeyElsewhere) -> str:
    return f"{reason.ref} has an entry with the same key, which a look-up may find instead"


@format_reason.register
def _(reason: reasons.RequestsExhausted) -> str:
    return f"the {reason.limit} requests of --max-requests are spent"


@format_reason.register
def _(reason: reasons.RestShareExhausted) -> str:
    return (
        f"the run has spent its share, {reason.share:.0%}, of the REST API's remaining rate limit: "
        "the rest is for other workflows (rest_share)"
    )


@format_reason.register
def _(reason: reasons.Interrupted) -> str:
    return f"interrupted by {reason.signal}"


# Why an index is written.


def _with_omitted(sentence: str, reason: reasons.WriteReason | reasons.UpToDate) -> str:
    """Add how many results were omitted, because the index would be too large."""
    if not reason.omitted:
        return sentence
    results = format_count(reason.omitted, "result")
    limit = reason.max_merge_size
    why = (
        f"max_merge_size is {limit:,} bytes" if limit else f"importers read {IMPORT_LIMIT:,} bytes"
    )
    return f"{sentence}; without {results} used longest ago: {why}"


def _blobs(count: int) -> str:
    return format_count(count, "blob")


@format_reason.register
def _(reason: reasons.MergeOthers) -> str:
    return _with_omitted(f"merge {_others(reason.ref, reason.others)}", reason)


@format_reason.register
def _(reason: reasons.FollowOthers) -> str:
    sentence = f"follow {_others(reason.ref, reason.others)}"
    changes = [
        f"{_blobs(count)} {how}"
        for how, count in (("more", reason.more), ("less", reason.less))
        if count
    ]
    return _with_omitted(f"{sentence}: {', '.join(changes)}" if changes else sentence, reason)


def _others(ref: str, count: int) -> str:
    others = "the other index" if count == 1 else f"the {count} other indexes"
    return others if ref == NO_REF else f"{others} of {ref}"


@format_reason.register
def _(reason: reasons.AddAgain) -> str:
    blobs = format_count(reason.blobs, "blob")
    return _with_omitted(f"add the results of {blobs} from earlier exports", reason)


@format_reason.register
def _(reason: reasons.Restore) -> str:
    are = "is" if reason.results == 1 else "are"
    sentence = (
        f"all its generations are gone; {format_count(reason.results, 'result')} {are} remembered"
    )
    return _with_omitted(sentence, reason)


@format_reason.register
def _(reason: reasons.Invalid) -> str:
    what = "its manifest" if reason.generation is None else f"generation {reason.generation}"
    return _with_omitted(f"{what} is invalid: {reason.violation}", reason)


@format_reason.register
def _(reason: reasons.Merge) -> str:
    merged = f"merge {_generations(reason.generations)} with generation {reason.into}"
    dropped = _dropped(reason)
    return _with_omitted("; ".join([merged, *dropped]), reason)


@format_reason.register
def _(reason: reasons.DropMissing) -> str:
    dropped = _dropped(reason)
    return _with_omitted("; ".join(dropped), reason)


@format_reason.register
def _(
    reason: reasons.DropUnused | reasons.Forgotten | reasons.AddSink | reasons.MergeGenerations,
) -> str:
    return _with_omitted(_WITHOUT_FACTS[type(reason)], reason)


def _generations(numbers: tuple[int, ...]) -> str:
    if len(numbers) > _FEW:
        return f"{len(numbers)} generations ({numbers[0]} to {numbers[-1]})"
    *others, last = map(str, numbers)
    return f"generations {', '.join(others)} and {last}" if others else f"generation {last}"


def _dropped(reason: reasons.Merge | reasons.DropMissing) -> list[str]:
    dropped = []
    if reason.without_content:
        dropped.append(f"drop {_blobs(reason.without_content)} without content")
    if reason.missing:
        are = "is" if reason.missing == 1 else "are"
        dropped.append(f"drop {_blobs(reason.missing)} that {are} gone or not needed")
    if reason.leaving:
        dropped.append(f"drop the results of {_blobs(reason.leaving)} to make room")
    return dropped


@format_reason.register
def _(reason: reasons.Shadowed) -> str:
    sentence = f"builds read {reason.by} instead, which was created later"
    return _with_omitted(sentence, reason)


@format_reason.register
def _(reason: reasons.Unlisted) -> str:
    sentence = f"{reason.key} is not in the list, so builds may read {reason.shadowed_by}"
    return _with_omitted(sentence, reason)


@format_reason.register
def _(reason: reasons.WrittenDuringSweep) -> str:
    return _written_during_sweep(reason.key, reason.blobs)


def _written_during_sweep(key: str, blobs: int) -> str:
    return f"{key} was written during the sweep and references {_blobs(blobs)} that it had deleted"


# Why an index is not written.


@format_reason.register
def _(reason: reasons.UsedByBuilds) -> str:
    if reason.is_named:
        return (
            "somebody else has written it, so runs do not write it: let builds only import it, or "
            "choose another merged_tag"
        )
    return (
        f"a build has exported {reason.key}, so runs do not write it: let builds export to "
        "another scope, or choose another merged_scope"
    )


@format_reason.register
def _(reason: reasons.UpToDate) -> str:
    what = "manifest" if reason.is_named else "newest generation"
    return _with_omitted(f"its {what} is up to date", reason)


@format_reason.register
def _(reason: reasons.NotBroken) -> str:
    pending = format_reason(reason.pending)
    return f"it is not broken; deferred to a run without --repair: {pending}"


@format_reason.register
def _(reason: reasons.NewestUnread) -> str:
    problem = format_reason(reason.cause)
    return f"its newest generation could not be read this time: {problem}"


@format_reason.register
def _(reason: reasons.NotWritable) -> str:
    sentence = (
        "nobody may write here" if reason.ref == NO_REF else f"the token cannot write {reason.ref}"
    )
    if reason.pending is None:
        return sentence
    return f"{sentence}; still to do: {format_reason(reason.pending)}"


@format_reason.register
def _(reason: reasons.KeyTooLong) -> str:
    return f"the next key would have {reason.length} characters; the limit is {reason.limit}"


@format_reason.register
def _(reason: reasons.TooLarge) -> str:
    if reason.concurrent:
        return f"with what builds have written since the run began, it {reason.problem}"
    return f"the merged index {reason.problem}"


@format_reason.register
def _(reason: reasons.NotHealed) -> str:
    sentence = _written_during_sweep(reason.key, reason.blobs)
    return f"{sentence}; {format_reason(reason.cause)}"


# What is ignored, or is not as it should be.


@format_reason.register
def _(reason: reasons.NotAFile) -> str:
    return f"ignored: it is {'a symbolic link' if reason.is_link else 'not a regular file'}"


@format_reason.register
def _(reason: reasons.BrokenTag) -> str:
    return f"ignored: {reason.problem}, so builds cannot import it"


# Why a planned action was not carried out.


@format_reason.register
def _(reason: reasons.NewestGone) -> str:
    return f"{reason.key} is gone, so builds read this one"


@format_reason.register
def _(reason: reasons.NewestUnchecked) -> str:
    return f"it could not be checked whether {reason.key} still exists ({reason.problem})"


@format_reason.register
def _(reason: reasons.NewIndex) -> str:
    return f"{reason.key} was written since the run began and may need it"


@format_reason.register
def _(reason: reasons.IndexNotListed) -> str:
    return f"a look-up finds {reason.key}, which the list does not show and which may need it"


@format_reason.register
def _(reason: reasons.BuildsUnknown) -> str:
    return f"it could not be checked what builds have done since the run began ({reason.problem})"


@format_reason.register
def _(reason: reasons.UseUnchecked) -> str:
    unchecked = "it could not be checked whether anybody has used it since the run began"
    return f"{unchecked} ({reason.problem})"


@format_reason.register
def _(reason: reasons.UploadInProgress) -> str:
    return f"a build is uploading ({reason.name}) and may be about to need it"


@format_reason.register
def _(reason: reasons.Changed) -> str:
    return reason.problem


@format_reason.register
def _(reason: reasons.RefInUse) -> str:
    return f"{reason.ref} was opened or created again since the run began"


@format_reason.register
def _(reason: reasons.RefUnchecked) -> str:
    return f"it could not be checked whether {reason.ref} is still closed ({reason.problem})"


@format_reason.register
def _(reason: reasons.Contended) -> str:
    return f"builds exported to it {reason.times} times since the run began"


@format_reason.register
def _(reason: reasons.NumbersReserved) -> str:
    return f"uploads that have not ended have reserved its next {reason.numbers} numbers"


@format_reason.register
def _(reason: reasons.Locked | reasons.ManifestGone) -> str:
    return reason.problem


@format_reason.register
def _(reason: reasons.BlobLost) -> str:
    return f"{reason.blob}, which it would reference, is gone since the run looked"


@format_reason.register
def _(reason: reasons.ImportLimit) -> str:
    return f"importers would not read it: they read at most {reason.limit:,} bytes"


# What leaves a cache that is full.


@format_reason.register
def _(reason: reasons.BeyondNewest) -> str:
    newer = format_count(reason.keep, "newer entry", "newer entries")
    return f"its ref has {newer} {reason.prefix}…, and a rule keeps no more"


@format_reason.register
def _(reason: reasons.Unused) -> str:
    return f"last used on {format_moment(reason.since)}, and {_format_unused(reason)}"


def _format_unused(reason: reasons.Unused) -> str:
    duration = format_duration(timedelta(seconds=reason.unused_for_seconds))
    return f"a rule keeps entries {reason.prefix}… for {duration} after their last use"


@format_reason.register
def _(reason: reasons.BeyondSize) -> str:
    return (
        f"a rule lets entries {reason.prefix}… take {format_size(reason.max_bytes)}, and this one "
        "was used longest ago"
    )


@format_reason.register
def _(reason: reasons.QuotaUnknown) -> str:
    known = (
        "the token may not ask for the quota"
        if reason.is_assumed
        else "the store has no quota of its own"
    )
    return f"no room is made for `keep_free`: {known}; set `quota`"


@format_reason.register
def _(reason: reasons.ProtectedExceedsLimit) -> str:
    return (
        f"nothing leaves: what is protected ({format_size(reason.protected)}) and what is not ours "
        f"to choose ({format_size(reason.others)}) exceed the limit of {format_size(reason.limit)}"
    )


# What kept a run from doing more.


@format_reason.register
def _(reason: reasons.NothingChanged) -> str:
    return (
        f"nothing has changed since run {reason.since_run}, which had nothing to do, and nothing "
        f"is due before {format_moment(reason.until)}"
    )


@format_reason.register
def _(reason: reasons.LossAccepted) -> str:
    what = format_loss(reason.found, reason.expected, reason.of)
    return f"{what}, and --accept-loss let the run go on"


def format_loss(found: int, expected: int, of: reasons.Counted) -> str:
    """Return how much of something was found."""
    return f"only {found} of {expected} {_COUNTED[of]} were found"


_COUNTED = {
    reasons.Counted.ENTRIES: "known entries",
    reasons.Counted.BLOBS: "known blobs",
    reasons.Counted.INDEXES: "known indexes",
    reasons.Counted.NEEDED_BLOBS: "blobs that the indexes need",
    reasons.Counted.CONTENTS: "contents of checked blobs",
}


@format_reason.register
def _(reason: reasons.StorageOutage) -> str:
    return (
        f"{reason.blobs} of {reason.checked} checked blobs could not be downloaded: that looks "
        "like an outage of the storage, so none counts as gone"
    )


@format_reason.register
def _(reason: reasons.ChecksFailed) -> str:
    return f"{_blobs(reason.blobs)} could not be checked: {reason.problem}"


@format_reason.register
def _(reason: reasons.ChecksDeferred) -> str:
    return f"the check of {_blobs(reason.blobs)} is deferred to the next run"


@format_reason.register
def _(reason: reasons.ContentAmbiguous) -> str:
    return (
        f"{_blobs(reason.blobs)} in several refs cannot be downloaded, and it is not known which "
        "refs lack the content: a run in another ref may find out"
    )


@format_reason.register
def _(reason: reasons.ContentUndeletable) -> str:
    return (
        f"{_blobs(reason.blobs)} cannot be downloaded, and without the REST API the entries cannot "
        "be deleted: the next export will reference them again"
    )


@format_reason.register
def _(reason: reasons.ClosedRefsUnknown) -> str:
    refs = format_count(reason.refs, "ref")
    return f"it is not known whether {refs} are closed, so they are kept: {reason.problem}"


@format_reason.register
def _(reason: reasons.ClosedRefsDeferred) -> str:
    refs = format_count(reason.refs, "ref")
    return f"the question whether {refs} are closed is deferred to the next run"


@format_reason.register
def _(reason: reasons.NothingFound) -> str:
    if reason.names:
        return f"no cache in {reason.place} has a name such as {', '.join(reason.names)}"
    return f"no cache was found in {reason.place}"


@format_reason.register
def _(_reason: reasons.VersionsKept) -> str:
    return (
        "the store keeps old versions of what is deleted, so deletions free nothing by themselves"
    )


@format_reason.register
def _(reason: reasons.BlobsExpire) -> str:
    days = format_count(reason.days, "day")
    return (
        f"a rule of the store deletes blobs after {days}, also those that indexes reference: "
        "builds will fail"
    )


@format_reason.register
def _(reason: reasons.UploadsLeft) -> str:
    uploads = format_count(reason.uploads, "upload")
    days = format_count(reason.days, "day")
    return f"{uploads} began more than {days} ago and did not end: they take space unseen"


@format_reason.register
def _(reason: reasons.DeletedKept) -> str:
    days = format_count(reason.days, "day")
    return f"the store keeps what is deleted for {days}, so deletions free nothing until then"


@format_reason.register
def _(reason: reasons.BlobsArchived) -> str:
    blobs = format_count(reason.blobs, "blob")
    return (
        f"{blobs} in the archive tier cannot be downloaded: a build fails that finds one of them "
        "stored and needs it"
    )


@format_reason.register
def _(reason: reasons.DeletionRefused) -> str:
    manifests = format_count(reason.manifests, "superseded manifest")
    return f"{manifests} cannot be deleted: {reason.problem}"


@format_reason.register
def _(reason: reasons.InlineCaches) -> str:
    tags = format_count(reason.tags, "tag")
    return f"{tags} with inline caches: runs never rewrite or delete images"


@format_reason.register
def _(reason: reasons.UntaggedUnknown) -> str:
    return (
        "manifests that builds replaced between two runs are unknown, so they are not deleted: "
        f"{reason.problem}"
    )


@format_reason.register
def _(reason: reasons.SharedNames) -> str:
    return (
        "builds of several images, or of several branches, seem to export to "
        f"{format_few(reason.names)}: each replaces what the others export"
    )


@format_reason.register
def _(reason: reasons.MergeOverwritten) -> str:
    results = format_count(reason.results, "result")
    return (
        f"another configuration, or a run with another database, has overwritten {reason.name} "
        f"with a merge of its own: what is unknown here ({results}) stays as long as overwritten "
        "exports, if builds used it lately"
    )


@format_reason.register
def _(reason: reasons.NamesDeleted) -> str:
    was, its = ("was", "its") if len(reason.names) == 1 else ("were", "their")
    return (
        f"{format_few(reason.names)} {was} deleted, and not by a run: what only {its} results need "
        "is kept no longer"
    )


@format_reason.register
def _(reason: reasons.MergeTakenOver) -> str:
    results = format_count(reason.results, "result")
    return (
        f"{reason.name} contains what this database does not know ({results}): it stays as long as "
        "overwritten exports, if builds used it lately"
    )


@format_reason.register
def _(reason: reasons.SweepUnchecked) -> str:
    return "it could not be checked whether builds reference what was deleted: " + reason.problem


@format_reason.register
def _(reason: reasons.Unfinished) -> str:
    left = [
        *(["the list of entries, and everything else"] if not reason.listed else []),
        *(
            [f"{format_count(reason.indexes, 'index', 'indexes')} to read"]
            if reason.indexes
            else []
        ),
        *([f"{_blobs(reason.blobs)} to look for"] if reason.blobs else []),
        *(["a check of what builds have written during the sweep"] if reason.heals else []),
        *([format_count(reason.actions, "action")] if reason.actions else []),
    ]
    deferred = f": deferred to the next run: {', '.join(left)}" if left else ""
    return f"{format_reason(reason.cause)}{deferred}"
