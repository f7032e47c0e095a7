"""The one line says the worst that is so, and the one thing that helps."""

from datetime import timedelta
from typing import get_args

import msgspec
import pytest

from maintainer.cacheconfig import NO_REF
from maintainer.model.outcome import Done, Failed, Kept, Outcome, Planned
from maintainer.model.reason import (
    BlobsArchived,
    BlobsExpire,
    ClosedRefsUnknown,
    DeadlinePassed,
    DeletedKept,
    DeletionRefused,
    DropUnused,
    ExportInProgress,
    InlineCaches,
    LeftForRoom,
    MergeOverwritten,
    MergeTakenOver,
    Note,
    NotHealed,
    NothingFound,
    NotWritable,
    ProtectedExceedsLimit,
    QuotaUnknown,
    RefDeleted,
    Remark,
    SharedNames,
    StoreNote,
    Unfinished,
    UnreadIndex,
    Unreferenced,
    UntaggedUnknown,
    UploadsLeft,
    UpToDate,
    VersionsKept,
)
from maintainer.report import EntryTotal, IndexReport, Report
from maintainer.report.actions import make_action
from maintainer.report.done import format_done, format_lost
from maintainer.report.model import (
    Blocked,
    BrokenTagReport,
    Changes,
    ContentReport,
    DepartureReport,
    NoteReport,
    ResultTotals,
    RoomReport,
    Space,
    SpacePart,
    StoreReport,
)
from maintainer.report.page.changes import format_changes
from maintainer.report.page.scopes import scopes_table, why_no_scopes
from maintainer.report.reasons import format_reason
from maintainer.report.verdict import CHANGES, judge
from tests.reports import AT, DIRECTORY, a_report, an_index

GB = 10**9


def _report(**more: object) -> Report:
    values: dict[str, object] = {
        "problems": (),
        "notes": (),
        "verdict": None,
        "indexes": (an_index(),),
        "results": ResultTotals(before=4, after=9, possible=9),
        "space": _space(reachable=2),
    }
    return a_report(**(values | more))


def _space(quota: int = 10, **parts: int) -> Space:
    """Divide a quota, in GB."""
    given = [
        SpacePart(kind, "tool-" if kind == "foreign" else kind, 1, size * GB)  # type: ignore[arg-type]
        for kind, size in parts.items()
    ]
    used = sum(parts.values())
    free = SpacePart("free", "free", 0, max(0, quota - used) * GB)
    return Space(quota * GB, used * GB, (*given, free))


def test_what_has_no_room_in_an_index_is_not_said_to_be_usable() -> None:
    own, merge = an_index(omitted=12), an_index(scope="maintained", is_merge=True, omitted=1_234)
    limited = an_index(omitted=1, reason=UpToDate(omitted=1, max_merge_size=4_000))

    said = [judge(_report(indexes=some)).message for some in ((own, merge), (merge,), (limited,))]

    assert said[0].startswith("Builds can use 9 results; 12 older ones have no room in an index;")
    assert "still exists: 9 results; maintained has no room for 1,234 of them;" in said[1]
    assert "1 older one has no room in an index (`max_merge_size`);" in said[2]


def test_a_cache_that_needs_nothing_is_all_right_and_nothing_is_to_be_done() -> None:
    verdict = judge(_report())

    assert verdict.level == "good"
    assert verdict.advice == ""
    assert "9 results; 80.0 % of the quota is free" in verdict.message


def test_a_cache_in_which_builds_find_nothing_is_not_healthy() -> None:
    nothing = {"usable_after": 0, "usable_possible": 0}
    index = an_index(**nothing)
    none = an_index(**nothing, generations_after=0)
    lost, empty = ResultTotals(3, 0, lost=3), ResultTotals(3, 0)

    verdicts = [
        judge(_report(indexes=(one,), results=results))
        for one, results in ((index, lost), (index, empty), (none, empty))
    ]

    assert [one.level for one in verdicts] == ["attention", "attention", "good"]
    assert "Builds find nothing in this cache" in verdicts[0].message
    assert "exist; 3 results were lost with blobs that" in verdicts[0].message
    assert verdicts[1].message.endswith("no index has a result whose blobs exist.")


def test_a_failed_run_is_the_worst() -> None:
    verdict = judge(_report(status="failed", problems=("the store is away", "and more")))

    assert verdict.level == "bad"
    assert "the store is away (and 1 more)" in verdict.message
    assert "again" in verdict.advice


def test_an_interrupted_run_is_to_be_run_again() -> None:
    assert judge(_report(status="interrupted")).level == "attention"


def test_without_a_runtime_token_it_says_that_nothing_could_be_done() -> None:
    verdict = judge(_report(readable=()))

    assert verdict.level == "attention"
    assert "runtime token" in verdict.message


def test_indexes_that_were_not_read_come_before_what_is_planned() -> None:
    verdict = judge(_report(entries=(EntryTotal("unread", 2, 10),), dry_run=True))

    assert "2 indexes could not be read" in verdict.message


def test_a_dry_run_says_what_builds_miss_and_how_to_change_it() -> None:
    planned = (make_action("write", "index", "ref", DropUnused(), Planned()),)
    index = an_index(usable_before=4, usable_after=9, usable_possible=9)

    verdict = judge(_report(dry_run=True, actions=planned, indexes=(index,)))

    assert verdict.message.startswith("Builds find 4 of 9 results that exist.")
    assert "without `--dry-run`" in verdict.advice


def test_a_dry_run_of_a_repair_does_not_advise_a_run_that_deletes() -> None:
    planned = (make_action("write", "index", "ref", DropUnused(), Planned()),)

    verdict = judge(_report(dry_run=True, repair=True, actions=planned))

    assert verdict.advice.endswith(
        "without `--dry-run`; in a workflow, turn dry-run off. It only repairs."
    )


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (0, "Builds find 4 of 9"),
        (1, "1 index is invalid or references blobs that are gone, so builds fail or redo steps. "),
        (2, "2 indexes are invalid or reference blobs that are gone, so builds fail or "),
    ],
)
def test_a_dry_run_says_first_how_many_indexes_are_broken(broken: int, said: str) -> None:
    planned = (make_action("write", "index", "ref", DropUnused(), Planned()),)

    verdict = judge(_report(dry_run=True, indexes_broken=broken, actions=planned))

    assert verdict.message.startswith(said)


@pytest.mark.parametrize("readable", [(), ("refs/heads/main",)])
def test_what_a_budget_left_is_done_by_another_run(readable: tuple[str, ...]) -> None:
    """A run that ends before it has marked anything does not know what the token reads."""
    note = NoteReport(Unfinished(DeadlinePassed()), "the --deadline has passed")

    verdict = judge(_report(notes=(note,), readable=readable))

    assert verdict.message == "the --deadline has passed"


def test_refs_that_nobody_may_ask_about_need_a_permission() -> None:
    note = NoteReport(ClosedRefsUnknown(2, "the token …"), "it is not known …")

    verdict = judge(_report(notes=(note,)))

    assert verdict.message == "it is not known …"
    assert "pull-requests: read" in verdict.advice


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (QuotaUnknown(is_assumed=True), "Set `quota` to what the cache may store, such as 10GB."),
        (
            ProtectedExceedsLimit(9 * GB, 8 * GB, 2 * GB),
            "Raise the quota, lower `keep_free`, or store less beside the build cache.",
        ),
    ],
)
def test_where_no_room_can_be_made_another_run_is_not_what_helps(reason: Note, advice: str) -> None:
    verdict = judge(_report(notes=(NoteReport(reason, format_reason(reason)),)))

    assert verdict.level == "attention"
    assert verdict.advice == advice


def test_results_that_left_to_make_room_are_named_with_what_brings_them_back() -> None:
    left = DepartureReport(
        "sha256:a", 2, ("web",), LeftForRoom(needed_at=AT, size=10, place=1, freed=10), "it left"
    )
    room = RoomReport(10 * GB, 9 * GB, 10 * GB, 8 * GB, departures=(left,), results=2)

    verdict = judge(_report(room=room))

    assert verdict.message == "2 results left the indexes, so that 1.0 GB of 10.0 GB will be free."
    assert "raise the quota" in verdict.advice
    assert judge(_report(room=room, dry_run=True)).advice == ""


def test_what_could_not_leave_yet_is_not_said_to_have_left() -> None:
    room = RoomReport(10 * GB, 9 * GB, 10 * GB, 8 * GB, held=2)

    verdict = judge(_report(room=room))

    assert verdict.message.startswith("To keep 1.0 GB of 10.0 GB free, 2 results had to leave the ")
    assert verdict.advice.startswith("Run `maintainer gc` again")


@pytest.mark.parametrize(
    ("index", "message", "advice"),
    [
        (
            an_index(still_broken=True),
            "web in refs/heads/web (merge web).",
            "Run `maintainer gc` again, and see the report on each index.",
        ),
        (
            an_index("main", still_broken=True),
            "main in refs/heads/main (merge main).",
            "Run `maintainer gc` in a workflow on refs/heads/main, whose token can write there.",
        ),
        (
            an_index(still_broken=True, signed=True, ref=NO_REF),
            "web (merge web).",
            "Let a build export it again: runs never rewrite it.",
        ),
    ],
    ids=["failed", "another ref", "signed"],
)
@pytest.mark.parametrize("repair", [False, True])
def test_a_cache_with_a_broken_index_is_not_healthy(
    index: IndexReport, message: str, advice: str, repair: bool
) -> None:
    report = _report(indexes=(index,), repair=repair, indexes_broken=1, actions=())

    verdict = judge(report)

    broken = "1 index is invalid or references blobs that are gone, so builds fail or redo steps"
    assert (verdict.level, verdict.advice) == ("attention", advice)
    assert verdict.message == f"{broken}: {message}"
    assert not repair or format_done(report) == f"nothing could be repaired: {broken}"
    two = judge(_report(indexes=(index, index), repair=repair)).message
    assert two.startswith("2 indexes are invalid or reference blobs")
    assert two.endswith(", and 1 more.")


def test_what_a_build_wrote_during_the_sweep_and_cannot_be_mended_needs_attention() -> None:
    why = NotHealed("index-web-1-00000000#5", 2, NotWritable("refs/heads/main"))
    kept = make_action("keep", "index-web-1-00000000#5", "refs/heads/main", why, Kept())

    verdict = judge(_report(actions=(kept,)))
    two = judge(_report(actions=(kept, kept)))

    assert verdict.level == "attention"
    assert "index-web-1-00000000#5" in verdict.message
    assert verdict.message.endswith(".")
    assert two.message.endswith(" (and 1 more).")
    assert "in a workflow on refs/heads/main" in verdict.advice


def test_after_a_failure_nothing_is_promised_that_was_not_checked() -> None:
    deleted = make_action("delete", "key", "ref", Unreferenced(), Done(), size=10)

    lost = make_action("delete", "key", "ref", Unreferenced(), Failed("no answer"), size=10)
    unsure = judge(_report(status="failed", problems=("it broke",), actions=(lost,)))
    failed = judge(_report(status="failed", problems=("it broke",), actions=()))
    halfway = judge(_report(status="failed", problems=("it broke",), actions=(deleted,)))

    assert failed.advice == "Fix this and run it again; nothing was deleted."
    assert halfway.advice == unsure.advice == "Fix this and run it again."


@pytest.mark.parametrize(
    ("outcome", "dry_run", "did"),
    [
        (None, False, "it merged and deleted nothing"),
        (Planned(), True, "it would merge nothing and delete 1 entry (10 B)"),
        (Done(), False, "it merged nothing and deleted 1 entry (10 B)"),
    ],
)
def test_a_run_without_a_runtime_token_says_what_it_did(
    outcome: Outcome | None, dry_run: bool, did: str
) -> None:
    reason = RefDeleted("refs/heads/topic")
    delete = outcome and make_action("delete", "key", "refs/heads/topic", reason, outcome, size=10)

    verdict = judge(_report(readable=(), dry_run=dry_run, actions=(delete,) if delete else ()))

    assert verdict.message == f"Without a runtime token this run could only list entries: {did}."


def test_results_in_a_ref_that_cannot_be_written_name_the_ref() -> None:
    index = an_index("web", usable_after=4, usable_possible=9)

    verdict = judge(_report(indexes=(index,), writable=()))

    assert "5 results in refs/heads/web" in verdict.message
    assert "a workflow on refs/heads/web" in verdict.advice


def test_results_of_a_name_that_was_not_written_lead_to_no_workflow() -> None:
    index = an_index("web", usable_after=4, usable_possible=9, ref=NO_REF)

    verdict = judge(_report(indexes=(index,), writable=(NO_REF,), store=DIRECTORY))

    assert verdict.message == "5 results exist, but builds do not find them."
    assert "workflow" not in verdict.advice


def test_signed_indexes_are_nothing_to_be_done_about() -> None:
    index = an_index(signed=True, usable_after=4, usable_possible=9)

    assert judge(_report(indexes=(index,))).level == "good"


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        ({"reachable": 2, "foreign": 7}, "the entries tool-… take 7.0 GB"),
        ({"reachable": 5, "unreadable": 4}, "closed pull requests"),
        ({"reachable": 5, "dangling": 4}, "shorten the grace period"),
        ({"reachable": 5, "others": 4}, "their entries take 4.0 GB"),
        ({"reachable": 5, "due": 4}, "Let a run delete what is due (4.0 GB)"),
        ({"reachable": 9}, "Raise the repository's cache limit"),
    ],
)
def test_a_full_cache_names_what_fills_it(parts: dict[str, int], advice: str) -> None:
    verdict = judge(_report(space=_space(**parts)))

    assert verdict.level == "attention"
    assert "90.0 % full" in verdict.message
    assert advice in verdict.advice


def test_a_full_cache_that_nobody_evicts_from_has_only_limits_of_the_settings() -> None:
    verdict = judge(_report(space=_space(reachable=9), store=DIRECTORY))

    assert "90.0 % full" in verdict.message
    assert "`keep_free`" in verdict.advice
    assert "repository" not in verdict.advice


def test_losses_in_a_cache_with_room_need_nothing_and_spoil_no_praise() -> None:
    report = _report(results=ResultTotals(4, 9, lost=1))

    assert judge(report).level == "good"
    assert "lost" not in judge(report).message
    assert format_lost(report) == "1 result was lost with blobs that GitHub evicted"
    assert "only a build can bring them back" in format_changes(report)[-2]
    assert format_lost(_report()) == ""


def test_losses_in_a_rather_full_cache_need_attention() -> None:
    assert judge(_report(space=_space(reachable=8))).level == "good"

    full = _report(space=_space(reachable=8), results=ResultTotals(4, 9, lost=3))

    assert judge(full).level == "attention"


def test_a_sweep_that_has_been_blocked_for_a_week_says_by_what_and_what_to_do() -> None:
    why, reason = UnreadIndex("index-web-1-0#1"), "index-web-1-0#1 could not be read this time"
    day = timedelta(days=1)
    lately = _report(blocked=Blocked(why, reason, AT - 7 * day + timedelta(seconds=1)))
    for_long = _report(blocked=Blocked(why, reason, AT - 9 * day))

    assert judge(lately).message == f"No unreferenced blob was deleted: {reason}."
    assert judge(for_long).level == "attention"
    assert judge(for_long).message == (
        f"No run has been able to delete an unreferenced blob for 9 days: {reason}."
    )
    assert "if builds cannot read them either, delete them (`gh cache" in judge(for_long).advice


def test_an_index_that_could_not_be_read_is_reported_with_the_cause() -> None:
    unread = (EntryTotal("unread", 1, 500),)
    why = UnreadIndex("index-web-1-0#1"), "index-web-1-0#1 could not be read this time"
    lately, for_long = (
        judge(_report(entries=unread, blocked=Blocked(*why, AT - timedelta(days=days), "HTTP 503")))
        for days in (0, 9)
    )

    assert lately.message == (
        "1 index could not be read this time, so no unreferenced blob was deleted: HTTP 503."
    )
    assert for_long.message.endswith(f"for 9 days: {why[1]} (HTTP 503).")


def test_results_that_we_lost_ourselves_are_never_all_right() -> None:
    verdict = judge(_report(results=ResultTotals(before=9, after=8, possible=8, dropped=1)))

    assert verdict.level == "attention"
    assert verdict.message == "Builds find 1 result fewer than before this run."


def test_a_build_that_exports_where_the_merge_belongs_is_named() -> None:
    index = an_index("maintained", used_by_builds="index-maintained-1-0#3")

    verdict = judge(_report(indexes=(index,)))

    assert verdict.level == "attention"
    assert "A build exports to maintained in refs/heads/maintained" in verdict.message


IN_PROGRESS = ExportInProgress("ref", AT)
EXPORT = Blocked(IN_PROGRESS, "an export is in progress", AT - timedelta(days=9))
UNFINISHED = Unfinished(DeadlinePassed())
WRITE = make_action("write", "index", "ref", DropUnused(), Done())
DELETE = make_action("delete", "blob", "ref", Unreferenced(), Done(), store_id=7, size=90)


def test_a_sweep_that_exports_keep_blocking_needs_another_time_of_day() -> None:
    verdict = judge(_report(blocked=EXPORT))

    assert "an export is in progress" in verdict.message
    assert "when no build exports" in verdict.advice


def test_an_export_that_has_just_begun_is_nothing_to_worry_about() -> None:
    lately = Blocked(IN_PROGRESS, EXPORT.sentence, AT)

    assert judge(_report(blocked=lately)).level == "good"


@pytest.mark.parametrize(("tags", "more"), [(1, ""), (3, ""), (5, " and 2 more")])
def test_tags_that_cannot_be_read_or_imported_are_named(tags: int, more: str) -> None:
    broken = tuple(BrokenTagReport(f"tag{number}", "it is gone") for number in range(tags))
    unread = tuple(BrokenTagReport(one.name, one.problem, blocks_sweep=True) for one in broken)

    assert judge(_report(broken_tags=broken)).message.startswith("Builds cannot import")
    assert judge(_report(broken_tags=broken)).message.endswith(f"(it is gone){more}.")
    assert (
        "no unreferenced blob was deleted: tag0 (it is gone)"
        in judge(_report(broken_tags=unread)).message
    )


@pytest.mark.parametrize("before", [4, 9])
def test_a_dry_run_says_what_it_would_do(before: int) -> None:
    results = ResultTotals(before=before, after=9, possible=9)
    planned = make_action("write", "index", "ref", DropUnused(), Planned())

    verdict = judge(_report(dry_run=True, actions=(planned,), results=results))

    assert ("Builds find 4 of 9" in verdict.message) == (before < 9)
    assert "a run would write 1 index and delete nothing." in verdict.message


@pytest.mark.parametrize(("entries", "are"), [(1, "is"), (2, "are")])
def test_entries_without_content_that_stay_are_told(entries: int, are: str) -> None:
    left = (EntryTotal("without content", entries, 10),)

    assert f"cannot be downloaded, and {are} still listed" in judge(_report(entries=left)).message


def test_a_tag_that_somebody_else_writes_where_the_merge_belongs_is_named() -> None:
    tag = an_index("maintained", ref=NO_REF, used_by_builds="maintained")

    verdict = judge(_report(indexes=(tag,), store=DIRECTORY))

    assert "Somebody else has written to maintained" in verdict.message


def test_a_repair_says_how_many_indexes_are_whole_again() -> None:
    failed = make_action("write", "index", "ref", DropUnused(), Failed("away"))

    assert judge(_report(repair=True, actions=())).message.startswith("Nothing was broken")
    assert judge(_report(repair=True, actions=(WRITE,))).message == "1 index repaired."
    half = judge(_report(repair=True, actions=(WRITE, failed)))
    assert (half.level, half.message) == ("attention", "1 of 2 indexes repaired.")


def test_a_repair_says_what_was_lost_and_does_not_call_an_empty_cache_healthy() -> None:
    lost, empty = (ResultTotals(9, left, lost=9 - left) for left in (4, 0))

    some = judge(_report(repair=True, actions=(WRITE,), results=lost))
    none = judge(_report(repair=True, actions=(WRITE,), results=empty))

    assert some.level == "good"
    assert some.message == "1 index repaired; 5 results were lost with blobs that GitHub evicted."
    assert none.level == "attention"
    assert none.message.startswith("1 index repaired. Builds find nothing in this cache: ")

    whole = judge(_report(repair=True, actions=(), results=empty))
    assert whole.level == "attention"
    assert whole.message.startswith(
        "Nothing was broken: every index is valid, and its blobs exist."
    )
    assert " Builds find nothing in this cache: " in whole.message


def test_a_bucket_s_reports_speak_of_names_and_a_directory_s_of_tags() -> None:
    damaged = (BrokenTagReport("main", "its manifest is damaged"),)
    bucket = StoreReport(noun="bucket", noun_of_name="name")

    for store, noun in ((bucket, "name"), (DIRECTORY, "tag")):
        report = _report(store=store, broken_tags=damaged)
        assert judge(report).message.startswith(f"Builds cannot import 1 {noun}: main")
        assert scopes_table(report, 9).columns[0] == noun
        assert why_no_scopes(_report(store=store, indexes=())).endswith(f" has no {noun}s.")


@pytest.mark.parametrize("note", [BlobsExpire(30), BlobsArchived(3)])
def test_a_repair_does_not_call_a_cache_healthy_whose_store_goes_on_to_break_it(
    note: StoreNote,
) -> None:
    other = UploadsLeft(1, 10)
    notes = tuple(NoteReport(one, format_reason(one)) for one in (other, note))

    for actions, said in (((), "Nothing was broken: "), ((WRITE,), "1 index repaired. ")):
        verdict = judge(_report(repair=True, actions=actions, notes=notes))

        assert verdict.level == "attention"
        assert verdict.message.startswith(said)
        assert verdict.message.endswith(f" {notes[1].sentence.capitalize()}.")
        assert "rule" in verdict.advice


def test_without_a_quota_nothing_is_said_of_it() -> None:
    assert "quota" not in judge(_report(space=_space(quota=0, reachable=2))).message
    assert "quota" not in judge(_report(space=None)).message


def test_an_empty_cache_is_all_right() -> None:
    assert judge(_report(entries=(), indexes=(), results=ResultTotals())).message == (
        "The cache is empty."
    )


def test_an_address_where_nothing_was_found_is_named_before_anything_else() -> None:
    planned = make_action("write", "index", "ref", DropUnused(), Planned())
    nothing = NothingFound("ap/manifests/")
    note = NoteReport(nothing, format_reason(nothing))

    for repair, dry_run, actions in (
        (False, False, ()),
        (True, False, ()),
        (False, True, (planned,)),
    ):
        report = _report(repair=repair, dry_run=dry_run, actions=actions, notes=(note,))
        verdict = judge(report)

        assert verdict.level == "attention"
        assert verdict.message == "No cache was found in ap/manifests/."
        assert verdict.advice.startswith("Check the address")


def test_several_refs_that_cannot_be_written_are_counted() -> None:
    hidden = [an_index(name, usable_after=4, usable_possible=9) for name in ("a", "b", "c")]

    assert "and 2 other refs exist" in judge(_report(indexes=tuple(hidden))).message


@pytest.mark.parametrize(
    ("more", "who"),
    [
        ({"store": DIRECTORY}, "are gone or damaged"),
        ({"contents": ContentReport(without_content=1)}, "or whose content it lost"),
        ({}, "GitHub evicted"),
        ({"changes": Changes(previous_run=1, gone_entries=2)}, "GitHub evicted"),
        ({"changes": Changes(previous_run=1)}, "that are gone"),
    ],
)
def test_losses_are_told_with_what_took_them(more: dict[str, object], who: str) -> None:
    report = _report(**({"results": ResultTotals(4, 9, lost=1)} | more))

    assert format_lost(report).endswith(who)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"status": "failed", "problems": ("it broke",)}, "the run failed: it broke"),
        (
            {"status": "interrupted", "notes": (NoteReport(UNFINISHED, "a signal"),)},
            "the run interrupted: a signal",
        ),
        (
            {"actions": (), "repair": True, "notes": (NoteReport(UNFINISHED, "time is up"),)},
            "nothing was written or deleted; time is up",
        ),
        ({"actions": (), "repair": True}, "nothing to repair"),
        ({"actions": (), "blocked": EXPORT}, "nothing was deleted; an export is in progress"),
        ({"actions": ()}, "nothing to do"),
        ({"actions": (WRITE, DELETE), "dry_run": True}, "would write 1 index and delete 1 entry"),
        (
            {"actions": (WRITE, msgspec.structs.replace(DELETE, outcome=Planned()))},
            "wrote 1 index, and deferred 1 entry (90 B) to a run that may delete",
        ),
        (
            {
                "actions": (WRITE, msgspec.structs.replace(DELETE, outcome=Planned())),
                "notes": (NoteReport(UNFINISHED, "time is up"),),
            },
            "wrote 1 index, and deferred 1 entry (90 B) to the next run",
        ),
        ({"actions": (WRITE, DELETE)}, "wrote 1 index and deleted 1 entry (90 B)"),
        ({"actions": (WRITE,)}, "wrote 1 index, and had nothing to delete"),
    ],
)
def test_what_a_run_did_is_said_in_one_line(more: dict[str, object], said: str) -> None:
    assert format_done(_report(**more)).startswith(said)


@pytest.mark.parametrize(
    ("pace", "said"), [(None, ""), (1, ", which takes at least 2 minutes"), (10, "")]
)
def test_how_long_deletions_take_is_said_if_it_is_a_while(pace: int | None, said: str) -> None:
    report = _report(actions=(DELETE, DELETE), dry_run=True, deletions_a_minute=pace)

    assert format_done(report).endswith(f"(180 B){said}")


@pytest.mark.parametrize(
    "note", [VersionsKept(), BlobsExpire(30), UploadsLeft(2, 7), BlobsArchived(3)]
)
def test_what_the_owner_should_change_at_a_store_is_advised_if_nothing_else_is_wrong(
    note: StoreNote,
) -> None:
    notes = (NoteReport(note, format_reason(note)),)

    advised = judge(_report(notes=notes))
    interrupted = judge(_report(notes=(*notes, NoteReport(UNFINISHED, "a signal"))))

    assert advised.message == f"{notes[0].sentence.capitalize()}."
    assert "rule" in advised.advice
    assert interrupted.message == "a signal"


def test_whatever_a_store_notes_has_advice_of_its_own_unless_it_needs_none() -> None:
    assert set(get_args(StoreNote)) - set(get_args(Remark)) == set(CHANGES)


def test_a_registry_that_deletes_nothing_may_be_changed() -> None:
    note = DeletionRefused(3, "HTTP 405")

    verdict = judge(_report(notes=(NoteReport(note, format_reason(note)),)))

    assert verdict.message == "3 superseded manifests cannot be deleted: HTTP 405."
    assert verdict.advice.startswith("Allow deletion")


@pytest.mark.parametrize(("names", "said"), [(1, "n0"), (5, "n0, n1, n2 and 2 more")])
def test_a_name_that_images_share_is_named_and_advised_about(names: int, said: str) -> None:
    note = SharedNames(tuple(f"n{number}" for number in range(names)))

    advised = judge(_report(notes=(NoteReport(note, format_reason(note)),)))

    assert f"seem to export to {said}: each replaces" in advised.message
    assert advised.advice.startswith("Give each image, and each branch, a name of its own")


def test_a_merge_that_another_configuration_has_overwritten_is_advised_about() -> None:
    note = MergeOverwritten("maintained", 2)

    advised = judge(_report(notes=(NoteReport(note, format_reason(note)),)))

    assert "has overwritten maintained" in advised.message
    assert advised.advice == "Give each configuration a `merged_tag` of its own."


@pytest.mark.parametrize(
    "remark",
    [
        DeletedKept(7),
        InlineCaches(2),
        MergeTakenOver("maintained", 2),
        UntaggedUnknown("only tags"),
    ],
)
def test_what_is_only_good_to_know_of_a_store_leaves_it_healthy(remark: StoreNote) -> None:
    assert judge(_report(notes=(NoteReport(remark, format_reason(remark)),))) == judge(_report())
