"""The one line says the worst that is so, and the one thing that helps."""

from datetime import timedelta

import pytest

from maintainer.model.outcome import Planned
from maintainer.model.reason import DeadlinePassed, DropUnused, Unfinished, UnreadIndex
from maintainer.report import EntryTotal, Report
from maintainer.report.actions import make_action
from maintainer.report.model import Blocked, NoteReport, ResultTotals, Space, SpacePart
from maintainer.report.verdict import judge
from tests.reports import AT, a_report, an_index

GB = 10**9


def _report(**more: object) -> Report:
    values: dict[str, object] = {
        "problems": (),
        "notes": (),
        "verdict": None,
        "indexes": (an_index(results_lost=0),),
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


def test_a_cache_that_needs_nothing_is_all_right_and_nothing_is_to_be_done() -> None:
    verdict = judge(_report())

    assert verdict.level == "good"
    assert verdict.advice == ""
    assert "9 results; 80.0 % of the quota is free" in verdict.message


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


@pytest.mark.parametrize("readable", [(), ("refs/heads/main",)])
def test_what_a_budget_left_is_done_by_another_run(readable: tuple[str, ...]) -> None:
    """A run that ends before it has marked anything does not know what the token reads."""
    note = NoteReport(Unfinished(DeadlinePassed()), "the --deadline has passed")

    verdict = judge(_report(notes=(note,), readable=readable))

    assert verdict.message == "the --deadline has passed"


def test_results_in_a_ref_that_cannot_be_written_name_the_ref() -> None:
    index = an_index("web", usable_after=4, usable_possible=9)

    verdict = judge(_report(indexes=(index,)))

    assert "5 results in refs/heads/web" in verdict.message
    assert "a workflow on refs/heads/web" in verdict.advice


def test_signed_indexes_are_nothing_to_be_done_about() -> None:
    index = an_index(signed=True, usable_after=4, usable_possible=9, results_lost=0)

    assert judge(_report(indexes=(index,))).level == "good"


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        ({"reachable": 2, "foreign": 7}, "the entries tool-… take 7.0 GB"),
        ({"reachable": 5, "unreadable": 4}, "closed pull requests"),
        ({"reachable": 5, "dangling": 4}, "shorten the grace period"),
        ({"reachable": 9}, "Raise the repository's cache limit"),
    ],
)
def test_a_full_cache_names_what_fills_it(parts: dict[str, int], advice: str) -> None:
    verdict = judge(_report(space=_space(**parts)))

    assert verdict.level == "attention"
    assert "90.0 % full" in verdict.message
    assert advice in verdict.advice


def test_losses_in_a_cache_with_room_are_told_and_need_nothing() -> None:
    verdict = judge(_report(indexes=(an_index(results_lost=1),)))

    assert verdict.level == "good"
    assert "1 result was lost" in verdict.message


def test_losses_in_a_rather_full_cache_need_attention() -> None:
    assert judge(_report(space=_space(reachable=8))).level == "good"

    full = _report(space=_space(reachable=8), indexes=(an_index(results_lost=3),))

    assert judge(full).level == "attention"


def test_a_sweep_that_has_been_blocked_for_a_week_says_by_what_and_what_to_do() -> None:
    why, reason = UnreadIndex("index-web-1-0#1"), "index-web-1-0#1 could not be read this time"
    day = timedelta(days=1)
    lately = _report(blocked=Blocked(why, reason, AT - 7 * day + timedelta(seconds=1)))
    for_long = _report(blocked=Blocked(why, reason, AT - 9 * day))

    assert judge(lately).message == f"No blob was deleted: {reason}."
    assert judge(for_long).level == "attention"
    assert judge(for_long).message == (
        f"No run has been able to delete a blob for 9 days: {reason}."
    )
    assert "gh cache delete" in judge(for_long).advice


def test_results_that_we_lost_ourselves_are_never_all_right() -> None:
    verdict = judge(_report(results=ResultTotals(before=9, after=8, possible=8, dropped=1)))

    assert verdict.level == "attention"
    assert verdict.message == "Builds find 1 result less than before this run."


def test_a_build_that_exports_where_the_merge_belongs_is_named() -> None:
    index = an_index("maintained", used_by_builds="index-maintained-1-0#3", results_lost=0)

    verdict = judge(_report(indexes=(index,)))

    assert verdict.level == "attention"
    assert "A build exports to maintained in refs/heads/maintained" in verdict.message
