"""Reasons: why something was decided, kept, skipped or deferred, as values. Pure.

Each reason has a code and facts; `report/reasons.py` turns it into a sentence. The graph and the
JSON report hold the same object, so a name here is public: the code is the name of the class in
snake case.
"""

import re
from datetime import datetime
from enum import StrEnum

import msgspec

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def to_code(name: str) -> str:
    """Return the code of a class: its name in snake case."""
    return _CAPITAL.sub("_", name).lower()


class Base(msgspec.Struct, frozen=True, tag_field="code", tag=to_code):
    """The base of all reasons: a code that identifies each class."""


def code_of(value: msgspec.Struct) -> str:
    """Return the code of a reason or an outcome."""
    return str(value.__struct_config__.tag)


class _OfRef(Base, frozen=True):
    ref: str
    """The ref, such as refs/heads/main; `-` in a store without refs."""


class _OfKey(Base, frozen=True):
    key: str
    """The key of the index."""


class _OfKeyInRef(_OfKey, frozen=True):
    ref: str
    """Its ref, such as refs/heads/main; `-` in a store without refs."""


class _OfTag(Base, frozen=True):
    tag: str
    """The name of the tag."""


class _OfBlobs(Base, frozen=True):
    blobs: int
    """How many blobs."""


class _OfProblem(Base, frozen=True):
    problem: str
    """What went wrong, in one line."""


class _OfIndex(Base, frozen=True):
    index: str
    """The name of an index: the beginning of its keys, or a tag."""
    ref: str
    """Its ref, such as refs/heads/main; `-` in a store without refs."""


# What an entry is.


class NotMarked(Base, frozen=True):
    """It was listed, and no run has marked it yet."""


class OtherTool(Base, frozen=True):
    """Its key is not one of BuildKit's."""


class ForeignKey(_OfRef, frozen=True):
    """It has the key of an index that builds in its ref do not write."""


class UnreadableRef(_OfRef, frozen=True):
    """The token cannot read its ref."""


class PullRequestClosed(Base, frozen=True):
    """Its pull request is closed, so no build reads it any more."""

    number: int
    """The number of the pull request."""
    closed_at: datetime | None
    """When it was closed; None if the service does not say it."""


class RefDeleted(_OfRef, frozen=True):
    """Its branch or tag does not exist any more, so no build reads it."""


ClosedRef = PullRequestClosed | RefDeleted


class NoContent(Base, frozen=True):
    """Its content cannot be downloaded."""


class Needed(_OfIndex, frozen=True):
    """A live result of this index needs it."""


class NeededByOtherTag(_OfTag, frozen=True):
    """A tag that is not a cache needs it."""


class NeededByOtherName(Base, frozen=True):
    """An index needs it that is not one of the names to maintain."""

    name: str
    """The name of the index."""


class Undeletable(_OfProblem, frozen=True):
    """The registry does not delete manifests."""


class NeededByDamagedTag(_OfTag, frozen=True):
    """A tag whose manifest is damaged may need it."""


class ReadByBuilds(Base, frozen=True):
    """It is the generation that builds read."""


class Signs(_OfKey, frozen=True):
    """It is the signature of an index that exists."""


class Signed(Base, frozen=True):
    """A signed index is never rewritten: the signature would not match."""


class Unread(Base, frozen=True):
    """It is an index that could not be read this time."""


class Overdue(Base, frozen=True):
    """It is deleted once it has been unreferenced for a grace period."""

    since: datetime | None = None
    """Since when it is unreferenced, if the grace period is over."""


class Unreferenced(Overdue, frozen=True):
    """No live result of any index needs it."""


class ReferencedUntilNow(Overdue, frozen=True, kw_only=True):
    """This index references it until it is rewritten, but no live result needs it."""

    index: str
    """The name of the index."""
    ref: str
    """Its ref, such as refs/heads/main; `-` in a store without refs."""


class SignedIndexGone(Overdue, frozen=True):
    """It is the signature of an index that is gone."""


class AbandonedUpload(Overdue, frozen=True):
    """A killed build left this upload."""


class Superseded(Overdue, frozen=True, kw_only=True):
    """A newer generation of its index exists."""

    by: int
    """The number of the newest generation."""


class Replaced(Base, frozen=True):
    """This run writes its replacement."""

    is_named: bool
    """Whether the replacement is the manifest of a tag; otherwise it is a generation."""


class Evicted(Base, frozen=True):
    """The store evicted it, or somebody else deleted it."""


class Removed(Base, frozen=True):
    """Something other than a run deleted it, such as a build with `reset=true` in a directory."""


class DeletedByUnfinishedRun(Base, frozen=True):
    """A run deleted it, but was killed or interrupted before it could record that."""


class FoundByLookUp(Base, frozen=True):
    """A look-up found it; it was never listed."""


class Missing(Base, frozen=True):
    """An index references it, but it does not exist."""


# Why an unreferenced entry is kept.


class UnreadIndex(Base, frozen=True):
    """An index could not be read this time, and may need any blob."""

    index: str
    """The name of the index."""


class IncompleteList(Base, frozen=True):
    """The list of entries was incomplete, so an index may have been missed."""


class StillReferenced(_OfIndex, frozen=True):
    """This index references it and is not rewritten."""


class OpaqueIndex(_OfKeyInRef, frozen=True):
    """An index whose content is unknown is newer, so it may need it."""

    until: datetime
    """When it may be deleted at the earliest."""


class Grace(Base, frozen=True):
    """Its grace period is not over."""

    state: str
    """Why it would be deleted: `dangling`, `superseded` or `unused`, for example."""
    since: datetime
    """When the period began."""
    until: datetime
    """When the period ends."""


class ExportInProgress(_OfRef, frozen=True):
    """An export seems to be in progress, and may rely on any blob."""

    since: datetime
    """When it uploaded the first blob that no index references."""


class IndexNotRewritten(_OfIndex, frozen=True):
    """Its index is not rewritten, so it may still be needed."""


# Why an index could not be read, and what ends a run early.


class Problem(_OfProblem, frozen=True):
    """Something went wrong."""


class SameKeyElsewhere(_OfRef, frozen=True):
    """Another ref has an entry of the same key, which a look-up may find instead."""


class RequestsExhausted(Base, frozen=True):
    """The run has sent all its requests (`--max-requests`)."""

    limit: int
    """How many requests it may send."""


class DeadlinePassed(Base, frozen=True):
    """The deadline of the run has passed."""


class RestShareExhausted(Base, frozen=True):
    """The run has used its share of the rate limit of the REST API."""

    share: float
    """The share of the rate limit that a run may use, 0 to 1."""


class Interrupted(Base, frozen=True):
    """A signal ended the run."""

    signal: str
    """The name of the signal."""


Exhausted = RequestsExhausted | DeadlinePassed | RestShareExhausted | Interrupted
WhyUnread = Problem | SameKeyElsewhere | Exhausted


# Why an index is written.


class _Write(Base, frozen=True, kw_only=True):
    omitted: int = 0
    """The results used longest ago, which there is no room for."""
    max_merge_size: int | None = None
    """The setting, in bytes, if it is what leaves no room; otherwise importers' limit does."""


class _WriteOfOthers(_Write, frozen=True):
    ref: str
    """Its ref, such as refs/heads/main; `-` in a store without refs."""
    others: int
    """How many others there are."""


class MergeGenerations(_Write, frozen=True):
    """Merge the generations of an index, of which the newest could not be read."""


class MergeOthers(_WriteOfOthers, frozen=True):
    """Merge all other indexes of a ref, or all other tags."""


class FollowOthers(_WriteOfOthers, frozen=True):
    """Bring the merge of all others up to date."""

    more: int
    """Blobs that the index gains."""
    less: int
    """Blobs that the index loses."""


class Restore(_Write, frozen=True):
    """No generation exists; write the remembered merge."""

    results: int
    """How many results the merge has."""


class Invalid(_Write, frozen=True):
    """Importers refuse the newest generation, or the manifest of a tag."""

    violation: str
    """What importers refuse in it."""
    generation: int | None
    """The number of the newest generation; None for a tag."""


class Merge(_Write, frozen=True):
    """Merge generations into the newest one."""

    generations: tuple[int, ...]
    """The numbers of the generations that are merged."""
    into: int
    """The number of the newest generation."""
    without_content: int = 0
    """Blobs that it references, and whose content cannot be downloaded."""
    missing: int = 0
    """Blobs that it references, and that are gone or not needed."""
    leaving: int = 0
    """Blobs whose results leave to make room."""


class DropMissing(_Write, frozen=True):
    """Drop blobs that are gone, not needed, without content, or that leave to make room."""

    without_content: int = 0
    """Blobs whose content cannot be downloaded."""
    missing: int = 0
    """Blobs that are gone or not needed."""
    leaving: int = 0
    """Blobs whose results leave to make room."""


class AddAgain(_Write, frozen=True):
    """Add results of earlier exports, which were overwritten, or whose blobs had gone or left."""

    blobs: int
    """How many blobs these results need."""


class DropUnused(_Write, frozen=True):
    """Drop unused keys and results."""


class Forgotten(_Write, frozen=True):
    """Drop all of it: its owner had it forgotten."""


class AddSink(_Write, frozen=True):
    """Add the sink record, without which builds find only part of the index."""


class Shadowed(_Write, frozen=True):
    """Builds read another key instead of the newest generation, because it was created later."""

    by: str
    """The key that builds read."""


class Unlisted(_Write, frozen=True):
    """The newest generation is not in the list, so builds may read another key."""

    key: str
    """The key of the newest generation."""
    shadowed_by: str
    """The key that builds may read."""


class WrittenDuringSweep(_Write, frozen=True):
    """A build wrote this index during the sweep; it references blobs that the sweep had deleted."""

    key: str
    """The key that the build wrote."""
    blobs: int
    """How many deleted blobs it references."""


WriteReason = (
    MergeGenerations
    | MergeOthers
    | FollowOthers
    | Restore
    | Invalid
    | Merge
    | DropMissing
    | AddAgain
    | DropUnused
    | Forgotten
    | AddSink
    | Shadowed
    | Unlisted
    | WrittenDuringSweep
)


# Why an index is not written.


class UsedByBuilds(_OfKey, frozen=True):
    """Somebody else has written the index that is reserved for the merge of all others."""

    is_named: bool = False
    """Whether the key is the name of a tag; otherwise it is that of a generation."""


class UpToDate(Base, frozen=True):
    """Its newest generation, or its manifest, contains everything that builds can use."""

    is_named: bool = False
    """Whether it is the manifest of a tag; otherwise it is a generation."""
    omitted: int = 0
    """The results used longest ago, which there is no room for."""
    max_merge_size: int | None = None
    """The setting, in bytes, if it is what leaves no room; otherwise importers' limit does."""


class NothingLeft(Base, frozen=True):
    """Nothing of it exists, and nothing is remembered."""


class NotBroken(Base, frozen=True):
    """A repair only writes what is broken; another run would write this index."""

    pending: WriteReason
    """Why it would be written."""


class NewestUnread(Base, frozen=True):
    """Its newest generation could not be read this time."""

    cause: WhyUnread
    """Why it could not be read."""


class NotWritable(_OfRef, frozen=True):
    """The token cannot write to its ref, or nobody may write to the store."""

    pending: WriteReason | None = None
    """Why it would be written, if that is known."""


class NumbersExhausted(Base, frozen=True):
    """Its generations have reached the highest number of a key."""


class KeyTooLong(Base, frozen=True):
    """The key of its next generation would be too long."""

    length: int
    """How many characters the key would have."""
    limit: int
    """How many characters a key may have."""


class TooLarge(_OfProblem, frozen=True):
    """The merged index would be too large for any run to read."""

    size: int
    """Bytes of the merged index."""
    concurrent: bool = False
    """Whether it is too large only with what builds have written since the run began."""


class NotHealed(_OfKey, frozen=True):
    """A build wrote this index during the sweep, and it cannot be rewritten without the blobs."""

    blobs: int
    """How many blobs it references that the sweep had deleted."""
    cause: Signed | NotWritable | UsedByBuilds
    """Why it cannot be rewritten."""


# What is not ours, or not as it should be.


class NotADigest(Base, frozen=True):
    """The name of a file among the blobs is not a digest."""


class NotAFile(Base, frozen=True):
    """Something with the name of a blob is not a regular file."""

    is_link: bool
    """Whether it is a symbolic link."""


class NotABlobDirectory(Base, frozen=True):
    """It is next to the directories of blobs and is not one of them."""


class BrokenTag(_OfProblem, frozen=True):
    """A tag has no readable manifest."""


class Damaged(Base, frozen=True):
    """Its content does not match its digest, so it counts as missing."""


class Unrecognized(Base, frozen=True):
    """No run recognizes it."""


# Why a planned action was not carried out.


class EarlierFailure(Base, frozen=True):
    """An earlier deletion failed, which ends a sweep."""


class ReferencedByNewIndex(Base, frozen=True):
    """A build has written an index that references it since the run began."""


class LookedUp(Base, frozen=True):
    """Somebody has looked it up since the run began."""


class NewestGone(_OfKey, frozen=True):
    """The generation that superseded it is gone, so builds read this one."""


class NewestUnchecked(_OfKey, frozen=True):
    """It could not be checked whether the generation that superseded it still exists."""

    problem: str
    """What went wrong, in one line."""


class NewIndex(_OfKeyInRef, frozen=True):
    """A build has written this index since the run began, and it may need any blob."""


class IndexNotListed(_OfKey, frozen=True):
    """A look-up finds this index, which no list has shown, and it may need any blob."""


class BuildsUnknown(_OfProblem, frozen=True):
    """It could not be checked what builds have done since the run began."""


class UseUnchecked(_OfProblem, frozen=True):
    """It could not be checked whether anybody has used it since the run began."""


class TooManyUsed(Base, frozen=True):
    """Too many entries were used since the run began to tell whether it was one of them."""


class Exported(Base, frozen=True):
    """A build has exported since the run began."""


class UploadInProgress(Base, frozen=True):
    """A build is uploading, and may be about to need any blob."""

    name: str
    """The name of the file, or of what else shows the upload."""


class Uploaded(Base, frozen=True):
    """A build has uploaded but not exported yet, so it may be about to need any blob."""


class Changed(_OfProblem, frozen=True):
    """It has changed since the run saw it."""


class WrittenByOtherRun(Base, frozen=True):
    """Another run has written the index since this one began."""


class RefInUse(_OfRef, frozen=True):
    """Its pull request was opened again since the run began, or its branch or tag created again."""


class RefUnchecked(_OfRef, frozen=True):
    """It could not be checked whether its ref is still closed."""

    problem: str
    """What went wrong, in one line."""


class Contended(Base, frozen=True):
    """Builds have exported to it again and again."""

    times: int
    """How often this run has tried."""


class NumbersReserved(Base, frozen=True):
    """Uploads that nobody has finished have reserved its next numbers."""

    numbers: int
    """How many numbers."""


class Locked(_OfProblem, frozen=True):
    """A build holds the lock."""


class ManifestGone(_OfProblem, frozen=True):
    """The manifest to replace is gone."""


class BlobLost(Base, frozen=True):
    """A blob that it would reference is gone since the run looked."""

    blob: str
    """The digest of the blob."""


class ImportLimit(Base, frozen=True):
    """Importers would not read the index."""

    limit: int
    """Bytes of the largest index that importers read."""


class NotACache(Base, frozen=True):
    """The tag now points to something that is not a cache."""


# What leaves a cache that is full.


class BeyondNewest(Base, frozen=True):
    """A rule keeps so many entries of each ref, and newer ones exist."""

    prefix: str
    """The beginning of the keys that the rule is about."""
    keep: int
    """How many entries it keeps."""


class Unused(Base, frozen=True):
    """A rule keeps entries for so long after their last use."""

    prefix: str
    """The beginning of the keys that the rule is about."""
    unused_for_seconds: int
    """How long it keeps them, in seconds."""
    since: datetime
    """When it was last used."""


class BeyondSize(Base, frozen=True):
    """A rule limits how much entries may take, and this one was used longest ago."""

    prefix: str
    """The beginning of the keys that the rule is about."""
    max_bytes: int
    """How much they may take, in bytes."""


class LeftForRoom(Overdue, frozen=True, kw_only=True):
    """The cache is full, and of all results builds needed it longest ago for its size."""

    needed_at: datetime
    """When a build last needed it."""
    size: int
    """Bytes of all blobs that it needs, shared or not."""
    place: int
    """Its place among all that leave: what leaves first has 1."""
    freed: int
    """Bytes of the blobs that are unreferenced once it and all before it have left."""


class QuotaUnknown(Base, frozen=True):
    """Room should be made, but nobody knows of how much."""

    is_assumed: bool
    """Whether the store has a quota that nobody reports; otherwise it has none."""


class ProtectedExceedsLimit(Base, frozen=True):
    """What is protected exceeds the limit alone, so nothing leaves."""

    limit: int
    """Bytes that the cache may hold."""
    protected: int
    """Bytes of the blobs that must stay."""
    others: int
    """Bytes of everything else that stays: other tools' entries, for example."""


# What kept a run from doing more.


class Counted(StrEnum):
    """What is counted to find out whether most of a cache is gone."""

    ENTRIES = "entries"
    """Those that are known."""
    BLOBS = "blobs"
    """Those that are known."""
    INDEXES = "indexes"
    """Those that are known."""
    NEEDED_BLOBS = "needed blobs"
    """Those that the indexes need."""
    CONTENTS = "contents"
    """Those of the blobs that were checked."""


class LossAccepted(Base, frozen=True):
    """Most of what is known is gone, and whoever started the run said that it should be."""

    found: int
    """How many of what is known exist."""
    expected: int
    """How many are known."""
    of: Counted
    """What was counted."""


class StorageOutage(_OfBlobs, frozen=True):
    """Too many blobs could not be downloaded, so none of them counts as gone."""

    checked: int
    """How many blobs were checked."""


class ChecksFailed(_OfBlobs, frozen=True):
    """Blobs whose check was inconclusive."""

    problem: str
    """The error of one of the checks."""


class ChecksDeferred(_OfBlobs, frozen=True):
    """Blobs whose check is deferred to the next run."""


class ContentAmbiguous(_OfBlobs, frozen=True):
    """Blobs that cannot be downloaded, stored in several refs: it is not known in which."""


class ContentUndeletable(_OfBlobs, frozen=True):
    """Blobs that cannot be downloaded, whose entries cannot be deleted without the REST API."""


class ClosedRefsUnknown(Base, frozen=True):
    """It could not be found out whether some refs are closed, so nothing of them is deleted."""

    refs: int
    """How many refs."""
    problem: str
    """What went wrong, in one line."""


class ClosedRefsDeferred(Base, frozen=True):
    """Refs that are only asked for in later runs."""

    refs: int
    """How many refs."""


class NothingFound(Base, frozen=True):
    """No cache is where it was looked for: no build has exported yet, or the address is wrong."""

    place: str
    """Where it was looked: a folder, a prefix of keys, or a repository."""
    names: tuple[str, ...] = ()
    """The names to maintain, with `*` and `?`, if others may be there."""


class VersionsKept(Base, frozen=True):
    """The store keeps old versions of what is deleted, so a deletion frees nothing at once."""


class BlobsExpire(Base, frozen=True):
    """A rule of the store deletes blobs by their age, also those that indexes reference."""

    days: int
    """The age, in days."""


class UploadsLeft(Base, frozen=True):
    """Uploads that began long ago and never ended: they take space, and no list shows them."""

    uploads: int
    """How many uploads."""
    days: int
    """The age from which uploads count, in days."""


class DeletedKept(Base, frozen=True):
    """The store keeps what is deleted for a while, so a deletion frees nothing at once."""

    days: int
    """How long it keeps it, in days."""


class BlobsArchived(_OfBlobs, frozen=True):
    """Blobs that builds find and cannot download."""


class DeletionRefused(Base, frozen=True):
    """The registry does not delete manifests, so superseded ones stay."""

    manifests: int
    """How many manifests stay."""
    problem: str
    """Why it does not, in one line."""


class SharedNames(Base, frozen=True):
    """Names to which builds of several images, or branches, export: each replaces the others."""

    names: tuple[str, ...]
    """The names."""


class MergeOverwritten(Base, frozen=True):
    """Another configuration has overwritten the merge of all names with its own."""

    name: str
    """The name of the merge."""
    results: int
    """Results that this database does not know; the younger ones are kept."""


class MergeTakenOver(Base, frozen=True):
    """The merge of all names contains results that this database does not know."""

    name: str
    """The name of the merge."""
    results: int
    """How many results."""


class NamesDeleted(Base, frozen=True):
    """Names, or tags, that somebody else than a run has deleted since the last run."""

    names: tuple[str, ...]
    """The names."""


class InlineCaches(Base, frozen=True):
    """Tags that are images with inline caches, which runs never rewrite."""

    tags: int
    """How many tags."""


class UntaggedUnknown(_OfProblem, frozen=True):
    """There may be manifests without a tag that no run has seen."""


Remark = DeletedKept | InlineCaches | MergeTakenOver | NamesDeleted | UntaggedUnknown
"""What is good to know of a store, and needs no change."""

StoreNote = (
    NothingFound
    | VersionsKept
    | BlobsExpire
    | UploadsLeft
    | BlobsArchived
    | DeletionRefused
    | SharedNames
    | MergeOverwritten
    | Remark
)
"""What the owner of a store should change there, or know: it lasts, whatever runs do."""


class SweepUnchecked(_OfProblem, frozen=True):
    """It could not be checked whether builds reference deleted blobs."""


class Unfinished(Base, frozen=True):
    """The budget of the run ended before its work; the rest is deferred to the next run."""

    cause: Exhausted
    """What ended it."""
    listed: bool = True
    """Whether the entries could be listed; without a list nothing else was done."""
    indexes: int = 0
    """Indexes to read."""
    blobs: int = 0
    """Blobs to look for."""
    heals: bool = False
    """Whether it has not been checked what builds wrote during the sweep."""
    actions: int = 0
    """Actions that were planned."""


class NothingChanged(Base, frozen=True):
    """Nothing has changed since a run that had nothing to do, and nothing is due."""

    since_run: int
    """The number of the run that had nothing to do."""
    until: datetime
    """When something falls due at the earliest."""


Note = (
    NothingChanged
    | QuotaUnknown
    | ProtectedExceedsLimit
    | LossAccepted
    | StorageOutage
    | ChecksFailed
    | ChecksDeferred
    | ContentAmbiguous
    | ContentUndeletable
    | ClosedRefsUnknown
    | ClosedRefsDeferred
    | SweepUnchecked
    | Unfinished
    | StoreNote
)

Reason = (
    NotMarked
    | OtherTool
    | ForeignKey
    | UnreadableRef
    | ClosedRef
    | NoContent
    | Needed
    | NeededByOtherTag
    | NeededByOtherName
    | Undeletable
    | NeededByDamagedTag
    | ReadByBuilds
    | Signs
    | Signed
    | Unread
    | Unreferenced
    | ReferencedUntilNow
    | SignedIndexGone
    | AbandonedUpload
    | Superseded
    | Replaced
    | Evicted
    | Removed
    | DeletedByUnfinishedRun
    | FoundByLookUp
    | Missing
    | UnreadIndex
    | IncompleteList
    | StillReferenced
    | OpaqueIndex
    | Grace
    | ExportInProgress
    | IndexNotRewritten
    | WhyUnread
    | WriteReason
    | UsedByBuilds
    | UpToDate
    | NothingLeft
    | NotBroken
    | NewestUnread
    | NotWritable
    | NumbersExhausted
    | KeyTooLong
    | TooLarge
    | NotHealed
    | NotADigest
    | NotAFile
    | NotABlobDirectory
    | BrokenTag
    | Damaged
    | Unrecognized
    | EarlierFailure
    | ReferencedByNewIndex
    | LookedUp
    | NewestGone
    | NewestUnchecked
    | NewIndex
    | IndexNotListed
    | BuildsUnknown
    | UseUnchecked
    | TooManyUsed
    | Exported
    | UploadInProgress
    | Uploaded
    | Changed
    | WrittenByOtherRun
    | RefInUse
    | RefUnchecked
    | Contended
    | NumbersReserved
    | Locked
    | ManifestGone
    | BlobLost
    | ImportLimit
    | NotACache
    | BeyondNewest
    | Unused
    | BeyondSize
    | LeftForRoom
    | Note
)
"""Every reason."""
