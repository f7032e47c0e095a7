"""Is the cache healthy? One line, and one thing to do if it is not. Pure."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import msgspec

from maintainer.cacheconfig import NO_REF
from maintainer.model.marks import State
from maintainer.model.outcome import Failed, Planned
from maintainer.model.reason import (
    BlobsArchived,
    BlobsExpire,
    ClosedRefsUnknown,
    DeletionRefused,
    LossAccepted,
    MergeOverwritten,
    Note,
    NotHealed,
    NothingFound,
    ProtectedExceedsLimit,
    QuotaUnknown,
    Remark,
    SharedNames,
    StoreNote,
    UploadsLeft,
    UpToDate,
    VersionsKept,
    WriteReason,
    code_of,
)
from maintainer.report.done import format_broken, format_done_blindly, format_lost, format_plan
from maintainer.report.model import BrokenTagReport, IndexReport, Report, Space, SpacePart, Verdict
from maintainer.report.words import as_sentence, format_count, format_few, format_share, format_size

LEVELS = {"good": "Healthy", "attention": "Needs attention", "bad": "Failing"}

_NEARLY_FULL = 0.9
_ROOMY = 0.8
_LET_IT_RUN = "Run the same command without `--dry-run`; in a workflow, turn dry-run off."
_LET_IT_REPAIR = f"{_LET_IT_RUN} It only repairs."
CHANGES: Mapping[type, str] = {
    NothingFound: "Check the address (prefixes, names, tags), unless no build has exported yet.",
    SharedNames: "Give each image, and each branch, a name of its own, and let all import "
    "`maintained`, too.",
    MergeOverwritten: "Give each configuration a `merged_tag` of its own.",
    VersionsKept: "Add a rule that deletes versions a day after they were replaced or deleted.",
    BlobsExpire: "Remove the rule: runs delete the blobs that no index references.",
    UploadsLeft: "Add a rule that ends unfinished uploads after a week.",
    BlobsArchived: "Delete these blobs, or rehydrate them, and remove the rule that archives them.",
    DeletionRefused: "Allow deletion in the registry, or for the credentials: see "
    "docs/registries.md.",
}
"""What the owner of a store should change there."""
_RUN_AGAIN = "Run `maintainer gc` again, and see the report on each index."
_HOW_TO_KNOW_REFS = (
    "Give the token the permissions `pull-requests: read` and `contents: read`, or turn "
    "`closed_refs` off."
)
_LONG = timedelta(days=7)
"""A sweep that is blocked for longer than this needs attention."""
_LARGE = 0.3
"""The share of the used space above which a part deserves advice."""


def judge(report: Report) -> Verdict:
    """Return the verdict of the first check that applies, from the worst to the best."""
    for check in _CHECKS:
        verdict = check(report)
        if verdict:
            return verdict
    return _good(report)


def _failed(report: Report) -> Verdict | None:
    if report.status == "interrupted":
        return Verdict(
            "attention",
            "The run was interrupted before it was done.",
            "Run `maintainer gc` again: it continues where this run stopped.",
        )
    if report.status == "done":
        return None
    more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
    return Verdict(
        "bad",
        f"The run failed: {next(iter(report.problems), 'no reason given')}{more}",
        f"Fix this and run it again{'' if _may_have_deleted(report) else '; nothing was deleted'}.",
    )


def _may_have_deleted(report: Report) -> bool:
    """Whether something was deleted, or may have been: the answer to a request may be lost."""
    return bool(report.entries_deleted) or code_of(Failed("")) in report.outcomes_of_deletions


def _not_healed(report: Report) -> Verdict | None:
    """Return what a build wrote during the sweep, and needs what was deleted then."""
    left = [action for action in report.actions if isinstance(action.reason, NotHealed)]
    if not left:
        return None
    more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    return Verdict(
        "attention",
        f"{left[0].sentence}{more}.",
        _how_to_write(report, left[0].ref),
    )


def _still_broken(report: Report) -> Verdict | None:
    broken = [index for index in report.indexes if index.still_broken]
    if not broken:
        return None
    first = broken[0]
    where = "" if first.ref == NO_REF else f" in {first.ref}"
    more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
    message = f"{format_broken(len(broken))}: {first.scope}{where} ({first.sentence}){more}."
    if first.signed:
        return Verdict("attention", message, "Let a build export it again: runs never rewrite it.")
    return Verdict("attention", message, _how_to_write(report, first.ref))


def _how_to_write(report: Report, ref: str) -> str:
    if ref == NO_REF or ref in report.writable:
        return _RUN_AGAIN
    return f"Run `maintainer gc` in a workflow on {ref}, whose token can write there."


def _nothing_found(report: Report) -> Verdict | None:
    for note in report.notes:
        if isinstance(note.reason, NothingFound):
            return Verdict("attention", as_sentence(note.sentence), CHANGES[NothingFound])
    return None


def _blind(report: Report) -> Verdict | None:
    if report.readable:
        return None
    return Verdict(
        "attention",
        f"Without a runtime token this run could only list entries: {format_done_blindly(report)}.",
        "Run the Action in a workflow of this repository: `maintainer init` writes one.",
    )


def _long_blocked(report: Report) -> Verdict | None:
    blocked = report.blocked
    if blocked is None or report.started_at - blocked.since < _LONG:
        return None
    days = (report.started_at - blocked.since).days
    long = format_count(days, "day")
    cause = f" ({blocked.cause})" if blocked.cause else ""
    why = f"{blocked.sentence}{cause}"
    message = f"No run has been able to delete an unreferenced blob for {long}: {why}."
    if blocked.by_export:
        return Verdict(
            "attention",
            message,
            "Run `maintainer gc` when no build exports, or right after one.",
        )
    return Verdict(
        "attention",
        message,
        "Make them readable: raise `max_index_size` or `max_requests`, or repair the service. Only "
        "if builds cannot read them either, delete them (`gh cache delete`).",
    )


def _unread(report: Report) -> Verdict | None:
    unread = sum(total.entries for total in report.entries if total.state == State.UNREAD)
    if not unread:
        return None
    cause = f": {report.blocked.cause}" if report.blocked and report.blocked.cause else ""
    return Verdict(
        "attention",
        f"{format_count(unread, 'index', 'indexes')} could not be read this time, so no "
        f"unreferenced blob was deleted{cause}.",
        "Run `maintainer gc` again in a few minutes.",
    )


def _part_of_list(report: Report) -> Verdict | None:
    if report.blocked is None or report.blocked.by_export:
        return None
    return Verdict(
        "attention",
        f"No unreferenced blob was deleted: {report.blocked.sentence}.",
        "Run `maintainer gc` again in a few minutes.",
    )


def _unread_tags(report: Report) -> Verdict | None:
    unread = [tag for tag in report.broken_tags if tag.blocks_sweep]
    if not unread:
        return None
    return Verdict(
        "attention",
        f"{format_count(len(unread), report.store.noun_of_name)} could not be read, so no "
        f"unreferenced blob was deleted: {_name_tags(unread)}.",
        "Let the run read what builds write; if the manifest is damaged, export to it again.",
    )


def _broken_tags(report: Report) -> Verdict | None:
    if not report.broken_tags:
        return None
    name = report.store.noun_of_name
    return Verdict(
        "attention",
        f"Builds cannot import {format_count(len(report.broken_tags), name)}: "
        f"{_name_tags(report.broken_tags)}.",
        "Export to it again, or delete it (in a directory, from index.json).",
    )


def _name_tags(tags: Sequence[BrokenTagReport]) -> str:
    return format_few([f"{tag.name} ({tag.problem})" for tag in tags])


def _only_planned(report: Report) -> Verdict | None:
    if not report.dry_run or not any(isinstance(a.outcome, Planned) for a in report.actions):
        return None
    found, exist = report.results.before, report.results.possible
    message = f"This was a dry run; a run would {format_plan(report)}."
    if found < exist:
        message = f"Builds find {found:,} of {format_count(exist, 'result')} that exist. {message}"
    if broken := report.indexes_broken:
        message = f"{format_broken(broken)}. {message}"
    return Verdict("attention", message, _LET_IT_REPAIR if report.repair else _LET_IT_RUN)


def _left_over(report: Report) -> Verdict | None:
    known = StoreNote | LossAccepted
    left = [note for note in report.notes if not isinstance(note.reason, known)]
    if not left:
        return None
    return Verdict("attention", left[0].sentence, _how_to_do_more(left[0].reason))


def _advised(report: Report) -> Verdict | None:
    """Return what the owner of the store should change there: it matters least."""
    notes = [
        note
        for note in report.notes
        if isinstance(note.reason, StoreNote) and not isinstance(note.reason, Remark)
    ]
    if not notes:
        return None
    return Verdict("attention", as_sentence(notes[0].sentence), CHANGES[type(notes[0].reason)])


def _how_to_do_more(note: Note) -> str:
    match note:
        case ClosedRefsUnknown():
            return _HOW_TO_KNOW_REFS
        case QuotaUnknown():
            return "Set `quota` to what the cache may store, such as 10GB."
        case ProtectedExceedsLimit():
            return "Raise the quota, lower `keep_free`, or store less beside the build cache."
        case _:
            return "Run `maintainer gc` again for the rest."


def _made_room(report: Report) -> Verdict | None:
    room = report.room
    if report.dry_run or room is None or not (room.results or room.held):
        return None
    free = f"{format_size(room.keep_free)} of {format_size(room.quota)}"
    if not room.results:
        held = format_count(room.held, "result")
        return Verdict(
            "attention",
            f"To keep {free} free, {held} had to leave the indexes, which were not written.",
            _RUN_AGAIN,
        )
    return Verdict(
        "attention",
        f"{format_count(room.results, 'result')} left the indexes, so that {free} will be free.",
        "If builds miss them, raise the quota, lower `keep_free`, or let other tools store less.",
    )


def _dropped(report: Report) -> Verdict | None:
    if report.dry_run or not report.results.dropped:
        return None
    return Verdict(
        "attention",
        f"Builds find {format_count(report.results.dropped, 'result')} fewer than before this run.",
        "Their blobs still exist: run `maintainer gc` again, and see the report on each index.",
    )


def _without_content(report: Report) -> Verdict | None:
    left = sum(t.entries for t in report.entries if t.state == State.WITHOUT_CONTENT)
    if report.dry_run or not left:
        return None
    return Verdict(
        "attention",
        f"{format_count(left, 'entry')} cannot be downloaded, and {'is' if left == 1 else 'are'} "
        "still listed: builds that find such an entry fail.",
        f"Run `maintainer gc` without `{'--repair' if report.repair else '--no-sweep'}`, with a "
        "token that may delete entries.",
    )


def _used_by_builds(report: Report) -> Verdict | None:
    for index in report.indexes:
        if index.used_by_builds and not report.store.numbered:
            return Verdict(
                "attention",
                f"Somebody else has written to {index.scope}, which is reserved for the merge of "
                "all others: the merge is not written.",
                "Let builds only import it, or choose another `merged_tag`.",
            )
        if index.used_by_builds:
            return Verdict(
                "attention",
                f"A build exports to {index.scope} in {index.ref}, which is reserved for the merge "
                "of all other indexes: the merge is not written.",
                "Let builds only import it, or choose another `merged_scope`.",
            )
    return None


def _if_it_lasts(report: Report, message: str) -> Verdict:
    """Return what a repair says: the store may go on to delete or archive what builds need."""
    for note in report.notes:
        if isinstance(note.reason, BlobsExpire | BlobsArchived):
            breaks = as_sentence(note.sentence)
            return Verdict("attention", f"{message} {breaks}", CHANGES[type(note.reason)])
    return Verdict("good", message)


def _repaired(report: Report) -> Verdict | None:
    if not report.repair:
        return None
    writes = report.planned_writes
    empty = _nothing_usable(report)
    if not writes:
        whole = "Nothing was broken: every index is valid, and its blobs exist."
        if empty:
            return msgspec.structs.replace(empty, message=f"{whole} {empty.message}")
        return _if_it_lasts(report, whole)
    if report.indexes_written == writes:
        repaired = f"{format_count(writes, 'index', 'indexes')} repaired"
        if empty:
            return msgspec.structs.replace(empty, message=f"{repaired}. {empty.message}")
        lost = format_lost(report)
        return _if_it_lasts(report, f"{repaired}{f'; {lost}' if lost else ''}.")
    return Verdict(
        "attention",
        f"{report.indexes_written} of {format_count(writes, 'index', 'indexes')} repaired.",
        "Run `maintainer gc --repair` again.",
    )


def _unreachable(report: Report) -> Verdict | None:
    hidden = [
        index
        for index in report.indexes
        if not (index.signed or index.is_merge)
        and (index.usable_possible or 0) > index.usable_after
    ]
    if not hidden:
        return None
    results = sum((index.usable_possible or 0) - index.usable_after for index in hidden)
    ref = hidden[0].ref
    others = len({index.ref for index in hidden}) - 1
    more = f" and {format_count(others, 'other ref')}" if others else ""
    where = "" if ref == NO_REF else f" in {ref}{more}"
    return Verdict(
        "attention",
        f"{format_count(results, 'result')}{where} exist, but builds do not find them.",
        _how_to_write(report, ref),
    )


def _full(report: Report) -> Verdict | None:
    if report.space is None or not report.space.quota:
        return None
    share = report.space.used / report.space.quota
    lost = format_lost(report)
    if share < (_ROOMY if lost else _NEARLY_FULL):
        return None
    return Verdict(
        "attention",
        f"The cache is {format_share(share)} full{f', and {lost}' if lost else ''}.",
        _how_to_make_room(report.space, evicts=report.store.evicted_by is not None),
    )


def _how_to_make_room(space: Space, *, evicts: bool) -> str:
    largest = max(
        (part for part in space.parts if part.kind not in ("free", "reachable")),
        key=lambda part: part.size,
        default=None,
    )
    if largest is None or largest.size < _LARGE * space.used:
        if evicts:
            return "Raise the repository's cache limit, or cache fewer images."
        return "Let runs keep more free (`keep_free`), raise `quota`, or cache fewer images."
    return _how_to_shrink(largest)


def _how_to_shrink(part: SpacePart) -> str:
    size = format_size(part.size)
    if part.kind == "foreign":
        return f"Make other tools store less (`room.rules`): the entries {part.name}… take {size}."
    if part.kind == "others":
        return f"Make other tools store less (`room.rules`): their entries take {size}."
    if part.kind == "due":
        return f"Let a run delete what is due ({size}): one without `--no-sweep` and `--dry-run`."
    if part.kind == "unreadable":
        return (
            "Delete the caches of closed pull requests (`room.closed_refs`): unreadable refs take "
            f"{size}."
        )
    return f"Wait, or shorten the grace period: {size} of {part.name} will be deleted when it ends."


def _nothing_usable(report: Report) -> Verdict | None:
    if report.results_usable or not any(one.generations_after for one in report.indexes):
        return None
    lost = format_lost(report)
    return Verdict(
        "attention",
        "Builds find nothing in this cache: no index has a result whose blobs exist"
        f"{f'; {lost}' if lost else ''}.",
        "The next export of a build fills it again. If this repeats, find out what deletes blobs.",
    )


def _good(report: Report) -> Verdict:
    if not (report.entries or report.results_usable):
        return Verdict("good", "The cache is empty.")
    free = ""
    if report.space and report.space.quota:
        share = max(0.0, 1 - report.space.used / report.space.quota)
        free = f"; {format_share(share)} of the quota is free"
    return Verdict("good", f"{_usable(report)}{free}.")


def _usable(report: Report) -> str:
    """Return what builds can use, and what indexes have no room for."""
    results = format_count(report.results_usable, "result")
    full = [index for index in report.indexes if index.omitted and not index.is_merge]
    if full:
        omitted = sum(index.omitted for index in full)
        have = "has" if omitted == 1 else "have"
        older = format_count(omitted, "older one")
        return f"Builds can use {results}; {older} {have} no room in an index{_limit(full[0])}"
    usable = f"Builds can use every cached result that still exists: {results}"
    merge = next((index for index in report.indexes if index.omitted), None)
    if merge is None:
        return usable
    return f"{usable}; {merge.scope} has no room for {merge.omitted:,} of them{_limit(merge)}"


def _limit(index: IndexReport) -> str:
    """Return the setting that leaves no room in an index, if it is not importers' own limit."""
    reason = index.reason
    is_ours = isinstance(reason, WriteReason | UpToDate) and reason.max_merge_size
    return " (`max_merge_size`)" if is_ours else ""


_CHECKS: tuple[Callable[[Report], Verdict | None], ...] = (
    _failed,
    _nothing_found,
    _left_over,
    _blind,
    _long_blocked,
    _unread,
    _unread_tags,
    _part_of_list,
    _not_healed,
    _only_planned,
    _made_room,
    _dropped,
    _without_content,
    _used_by_builds,
    _broken_tags,
    _still_broken,
    _repaired,
    _unreachable,
    _advised,
    _full,
    _nothing_usable,
)
