"""What a report says is so: it does not call deleted what is left, nor a later run the first."""

from datetime import timedelta

import msgspec
import pytest
from rich.console import Console

from maintainer.cacheconfig import NO_REF
from maintainer.graph.forest import ScopeTree
from maintainer.graph.reports import RunSummary
from maintainer.model.outcome import AlreadyGone, Done, Failed, Kept, Outcome, Planned, Skipped
from maintainer.model.reason import (
    DropUnused,
    Grace,
    NoContent,
    Reason,
    Unread,
    WrittenByOtherRun,
    WrittenDuringSweep,
)
from maintainer.report import Report
from maintainer.report.actions import make_action
from maintainer.report.done import format_done
from maintainer.report.github import outputs
from maintainer.report.html import render_html
from maintainer.report.markdown import render_markdown
from maintainer.report.model import (
    ActionReport,
    ActionTotal,
    Changes,
    GoneEntry,
    NamedSpace,
    Space,
    SpacePart,
    Trend,
    TrendPoint,
    Verdict,
)
from maintainer.report.page import changes, health, scopes, storage, trend
from maintainer.report.terminal import render_report, render_runs
from maintainer.report.tree import render_forest
from tests.reports import AT, DIRECTORY, a_report, an_index

WRITE = make_action("write", "index-web", "main", DropUnused(), Done(), size=9)
WHY = "its content cannot be downloaded"


def _with(*outcomes: Outcome, **more: object) -> Report:
    deletes = [
        make_action(
            "delete", f"blob-{number}", "main", NoContent(), outcome, store_id=number, size=10
        )
        for number, outcome in enumerate(outcomes)
    ]
    return a_report(actions=(WRITE, *deletes), **more)


def _why(report: Report) -> tuple[list[str], list[str]]:
    """Return what is said to be deleted, and what is said to be left."""
    tables = (changes.deleted_table(report, 9), changes.deferred_table(report, 9))
    deleted, left = ([f"{row[0].text} {row[2].text}" for row in one.rows] for one in tables)
    return deleted, left


def test_what_a_run_without_a_sweep_leaves_is_not_called_deleted() -> None:
    report = _with(Planned(), Planned())

    assert _why(report) == ([], [f"2 {WHY}"])
    assert changes.deferred_table(report, 9).title == "Not deleted"
    assert changes.format_changes(report)[-1] == (
        "This run wrote 1 index, and deferred 2 entries (20 B) to a run that may delete."
    )
    assert (
        format_done(report)
        == "wrote 1 index, and deferred 2 entries (20 B) to a run that may delete"
    )


def test_what_was_deleted_and_what_was_not_stand_apart() -> None:
    report = _with(Done(), AlreadyGone(), Failed("HTTP 500"), Planned())

    assert _why(report) == (
        [f"1 already gone: {WHY}", f"1 {WHY}"],
        [f"1 failed: HTTP 500: {WHY}", f"1 {WHY}"],
    )
    said = "deleted 1 of 4 entries (10 B); 1 was already gone"
    assert said in changes.format_changes(report)[-1]
    assert said in format_done(report)


def test_what_was_gone_already_is_not_what_a_run_has_freed() -> None:
    more = (ActionTotal("delete", "already_gone", 7, 70), ActionTotal("delete", "done", 2, 20))
    report = msgspec.structs.replace(_with(Done(), AlreadyGone()), more_actions=more)

    assert (report.entries_deleted, report.bytes_freed, report.already_gone) == (3, 30, 8)
    assert format_done(report).endswith("deleted 3 of 11 entries (30 B); 8 were already gone")


def test_deletions_that_are_told_in_a_total_only_were_tried_too() -> None:
    more = (ActionTotal("delete", "done", 7, 70),)
    report = msgspec.structs.replace(_with(Planned()), more_actions=more)

    assert "deleted 7 of 8 entries (70 B)" in changes.format_changes(report)[-1]


def test_what_is_told_in_a_total_only_is_counted_everywhere() -> None:
    more = (ActionTotal("delete", "done", 1_500, 70), ActionTotal("delete", "deferred", 4, 8))
    report = msgspec.structs.replace(_with(Done()), more_actions=more)

    (others, *_), (left, *_) = (
        changes.deleted_table(report, 9).rows,
        changes.deferred_table(report, 9).rows,
    )
    assert (others[0].text, left[0].text) == ("1,500", "4")
    assert outputs(report)["entries-deleted"] == "1501"


def test_an_index_that_was_written_for_what_the_sweep_had_deleted_is_listed_with_its_reason() -> (
    None
):
    why = WrittenDuringSweep("index-web-1-00000000#5", 1)
    heal = make_action("write", "index-web-1-00000000#6", "refs/heads/web", why, Done())

    table = changes.written_table(a_report(indexes=(), actions=(heal,)), 9)

    ((key, ref, _, outcome, reason),) = table.rows
    assert table.title == "Written"
    assert (key.text, ref.text) == ("index-web-1-00000000#6", "refs/heads/web")
    assert (outcome.text, reason.text) == ("done", heal.sentence)


def test_a_dry_run_says_what_would_be() -> None:
    report = _with(Planned(), dry_run=True)

    assert changes.deleted_table(report, 9).title == "Would be deleted"
    assert len(changes.deleted_table(report, 9).rows) == 1
    assert not changes.deferred_table(report, 9).rows
    assert changes.lost_table(report, 9).title == "Lost, because a blob is gone"
    assert "A run would write 1 index and delete 1 entry (10 B)." in changes.format_changes(report)
    idle = a_report(actions=(), dry_run=True)
    assert "A run would have nothing to write or delete." in changes.format_changes(idle)


@pytest.mark.parametrize(
    ("outcomes", "title"),
    [
        ((Done(), Failed("HTTP 500")), "Written"),
        ((Skipped(WrittenByOtherRun()),), "Not written"),
    ],
)
def test_an_index_that_was_not_written_is_not_called_written(
    outcomes: tuple[Outcome, ...], title: str
) -> None:
    indexes = tuple(an_index(outcome=outcome) for outcome in outcomes)

    assert changes.written_table(a_report(indexes=indexes), 9).title == title


def test_of_evictions_before_the_first_run_nothing_is_claimed() -> None:
    first = a_report(trend=Trend(), changes=Changes())
    second = a_report(trend=Trend(), changes=Changes(previous_run=1, previous_at=AT))
    failed = a_report(store=DIRECTORY, trend=Trend(), readable=(), entries=(), status="failed")

    assert "No eviction history before the first run" in trend.format_evictions(first)
    assert "The database records no evictions" in trend.format_evictions(second)
    assert trend.format_evictions(failed).endswith("delete anything from a directory.")


@pytest.mark.parametrize(
    ("limit", "which"), [(2, ": the 2 largest of 9"), (5, ": the 3 largest of 9")]
)
def test_as_many_of_the_largest_entries_that_are_gone_are_shown_as_it_says(
    limit: int, which: str
) -> None:
    gone = tuple(GoneEntry(f"blob-{number}", "main", 10) for number in range(3))
    report = a_report(changes=Changes(previous_run=2, gone_entries=9, gone_largest=gone))

    table = changes.gone_table(report, limit)

    assert table.title == f"Evicted by GitHub since{which}"
    assert (len(table.rows), table.omitted) == (min(limit, 3), 0)


def test_a_later_run_that_saw_nothing_is_not_called_the_first() -> None:
    points = (TrendPoint(1, AT - timedelta(days=1), {}, 3),)

    told = trend.format_trend(a_report(run=2, trend=Trend(points, 1)))

    assert told == "Run 1 is the only completed run on this cache so far."
    assert "first run" in trend.format_trend(a_report(run=1, trend=Trend(points, 1)))


def test_a_command_in_a_summary_is_code_as_a_whole() -> None:
    advice = "Run `maintainer gc` without `--dry-run`, lower `keep_free`, or ask @octo."
    report = a_report(verdict=Verdict("attention", "message", advice))

    assert (
        "**To do:** Run <code>maintainer gc</code> without <code>--dry-run</code>, "
        "lower <code>keep_free</code>, or ask <code>&#64;octo.</code>"
    ) in render_markdown(report)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("41.3 % are free (5.9 GB), from 16:38 UTC; 2026-11-28!", None),
        ("max_index_size, a-b, \"c\" = 'd' + e?", None),
        ("see www.example.com", "see www&#46;example&#46;com"),
        ("http://x a:b _a_ a*b", "http&#58;//x a:b &#95;a&#95; a&#42;b"),
        ("a|b <i> [x](y) &amp; R&D", "a&#124;b &#60;i> &#91;x](y) &#38;amp; R&D"),
        ("- a list", "&#45; a list"),
        ("2) a list", "2&#41; a list"),
        ("> a quotation", "&#62; a quotation"),
        ("---", "&#45;--"),
    ],
)
def test_markdown_escapes_only_what_would_be_syntax_there(text: str, escaped: str | None) -> None:
    report = a_report(verdict=Verdict("good", text))

    assert f"Healthy\n\n{escaped or text}\n\nRun 3" in render_markdown(report)


# The figures that matter most, and what comes next.


def test_four_tiles_show_distinct_things() -> None:
    tiles = health.tiles(a_report())

    assert [(tile.name, tile.figure, tile.note) for tile in tiles] == [
        ("results that builds can use", "9", "4 when this run began"),
        ("stored", "8.0 kB", "80.0 % of 10.0 kB"),
        ("freed by this run", "90 B", "1 entry"),
        ("evicted since the last run", "10 B", "1 entry"),
    ]


def test_tiles_of_a_plan_say_what_a_run_would_do() -> None:
    results, _, freed, evicted = health.tiles(a_report(dry_run=True, changes=Changes()))

    assert (results.figure, results.note) == ("4", "9 after a run")
    assert (freed.name, freed.note) == ("would be freed", "1 entry")
    assert (evicted.figure, evicted.note) == ("not known", "this is the first run")


def test_tiles_do_not_name_what_a_run_cannot_know() -> None:
    assert health.tiles(a_report(entries=(), readable=(), space=None)) == ()
    blind = health.tiles(a_report(readable=()))
    assert (blind[0].figure, blind[0].note) == ("not known", "without a runtime token")
    directory = health.tiles(a_report(store=DIRECTORY, space=None))
    assert (directory[1].figure, directory[1].note) == ("8.0 kB", "no quota")
    assert directory[3].name == "deleted by others since the last run"


def test_a_store_without_refs_has_tags_and_no_generations() -> None:
    index = an_index(ref="-", scope="latest")
    report = a_report(store=DIRECTORY, space=None, indexes=(index,))

    assert scopes.scopes_table(report, 10).columns[:3] == ("tag", "keys", "usable")
    assert changes.written_table(report, 10).columns == ("tag", "outcome", "why")
    assert scopes.scopes_table(a_report(), 10).columns[:3] == ("scope", "ref", "generations")
    for text in (render_html(report), render_markdown(report)):
        assert " in -" not in text
        assert "<code>-</code>" not in text
    assert "The token reads" not in render_html(report)
    assert storage.why_no_space(report) == (
        "A directory has no quota. It stores 5.0 kB in 5 reachable entries, 3.0 kB in 1 foreign "
        "entry."
    )


def test_what_is_deleted_next_is_listed_by_the_day_on_which_it_is_due() -> None:
    def kept(hours: float, state: str, size: int) -> ActionReport:
        reason = Grace(state, AT, AT + timedelta(hours=hours))
        return make_action("keep", f"{hours}", "main", reason, Kept(), store_id=7, size=size)

    actions = (
        *(kept(30, "dangling", 5), kept(30.5, "dangling", 7), kept(2, "superseded", 1)),
        *(kept(5, "superseded", 2), kept(-9, "dangling", 3)),
    )
    table = changes.next_table(a_report(actions=actions), 10)

    assert [[cell.text for cell in row] for row in table.rows] == [
        ["in the next run", "dangling", "1", "3 B"],
        ["2026-08-01, from 14:00 UTC", "superseded", "2", "3 B"],
        ["2026-08-02, from 18:00 UTC", "dangling", "2", "12 B"],
    ]
    assert changes.kept_table(a_report(actions=actions), 10).rows == ()


@pytest.mark.parametrize(
    ("reason", "tables"),
    [
        (Grace("dangling", AT, AT + timedelta(hours=2)), (2, 0)),
        (Unread(), (0, 2)),
    ],
    ids=["in its grace period", "for another reason"],
)
def test_that_not_all_that_is_kept_is_listed_is_said_once(
    reason: Reason, tables: tuple[int, int]
) -> None:
    keep = make_action("keep", "blob", "main", reason, Kept(), store_id=7, size=5)
    more = (ActionTotal("keep", "kept", 1_000, 9_000), ActionTotal("delete", "done", 3, 3))
    report = a_report(actions=(keep,), more_actions=more)
    due, kept = changes.next_table(report, 1), changes.kept_table(report, 2)

    assert (len(due.rows), len(kept.rows)) == tables
    [others] = [
        texts
        for row in (*due.rows, *kept.rows)
        if (texts := {cell.text for cell in row}) > {"1,000", "9.0 kB"}
    ]
    assert any("the view `entries`" in text for text in others)


@pytest.mark.parametrize(
    ("quota", "used", "mark", "width"),
    [(100, 50, None, 500.0), (100, 125, 800.0, 1_000.0), (1_000, 10, None, 1_000.0)],
    ids=["below", "above", "far"],
)
def test_the_quota_is_a_mark_on_a_bar_that_shows_what_is_stored(
    quota: int, used: int, mark: float | None, width: float
) -> None:
    parts = (SpacePart("reachable", "reachable", 1, used), SpacePart("free", "free", 0, 0))
    html = render_html(a_report(space=Space(quota, used, parts)))

    assert (f'x1="{mark}"' in html) == (mark is not None)
    assert f'class="k-reachable" x="0.0" y="0" width="{width}"' in html


def test_a_store_without_a_quota_shows_what_is_stored_and_no_quota() -> None:
    space = Space(None, 50, (SpacePart("reachable", "reachable", 1, 50),))
    report = a_report(store=DIRECTORY, space=space)

    table = storage.space_table(report)
    assert table
    assert (table.columns[-1], table.rows[0][-1].text) == ("of all", "100.0 %")
    assert health.tiles(report)[1] == health.Tile("stored", "50 B", "no quota")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(render_report(report))
    for text in (render_html(report), render_markdown(report), shown.get()):
        assert "are stored." in text
        assert "assumed" not in text
        assert "of the quota" not in text


def test_without_a_runtime_token_the_list_says_what_the_indexes_of_a_scope_take() -> None:
    space = a_report().space
    assert space
    scopes = (NamedSpace("api", 3, 300), NamedSpace("", 9, 100))
    space = msgspec.structs.replace(space, scopes=scopes)
    listed = a_report(indexes=(), readable=(), space=space)
    text = render_markdown(listed)

    assert "**Indexes by scope, without layers**" in text
    assert "| <code>api</code> | 3 | 300 B | 75.0 % |" in text
    assert "| <code>all other scopes</code> | 9 | 100 B | 25.0 % |" in text
    assert "Indexes by scope" in render_html(listed)
    assert not storage.listed_scopes_table(a_report(space=space)).rows, "its indexes say more"


def test_what_an_index_shares_stands_beside_what_only_it_needs() -> None:
    table = scopes.scopes_table(a_report(), 9)
    row = dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))

    assert (row["size"], row["own"], row["shared"]) == ("5.0 kB", "1.0 kB", "4.0 kB")


@pytest.mark.parametrize(("width", "line"), [(80, "  ref refs/heads/web, "), (160, "web  ")])
def test_a_narrow_terminal_is_not_shown_columns_of_single_letters(width: int, line: str) -> None:
    console = Console(width=width, force_terminal=False)

    with console.capture() as shown:
        console.print(render_report(a_report(indexes=(an_index("web"),))))

    assert any(one.startswith(line) for one in shown.get().splitlines())
    assert "shared 4.0 kB" in " ".join(shown.get().split()) or width > 80


def test_a_grace_period_that_is_not_a_day_is_told() -> None:
    usual, short = (a_report(grace_seconds=hours * 3_600) for hours in (24, 2))

    assert not any("The grace period" in line for line in changes.format_changes(usual))
    assert "The grace period of this run was 2 hours." in changes.format_changes(short)


def test_a_terminal_refers_to_other_chains_only_after_it_has_shown_some() -> None:
    console = Console(width=200)
    with_chains = (an_index("web"), an_index("api"))
    without = tuple(msgspec.structs.replace(one, chains=()) for one in with_chains)

    shown = []
    for indexes in (with_chains, without):
        with console.capture() as one:
            console.print(render_report(a_report(indexes=indexes)))
        shown.append("and so on for the others" in one.get())

    assert shown == [True, False]


def test_a_list_of_runs_does_not_break_names_and_times_on_a_narrow_terminal() -> None:
    place = f"local:/var/{'x' * 30}/cache"
    run = RunSummary(7, place, AT, AT + timedelta(seconds=1), "done", False, 1, 2, 3_000, 4)
    console = Console(width=60, force_terminal=False)

    with console.capture() as shown:
        console.print(render_runs([run]))

    lines = shown.get().splitlines()
    assert lines[0].strip() == "run 7"
    assert any(place in line for line in lines)


@pytest.mark.parametrize(("ref", "title"), [("main", "web in main: "), (NO_REF, "web: ")])
def test_a_tree_names_a_ref_only_where_there_are_refs(ref: str, title: str) -> None:
    console = Console(width=99)

    with console.capture() as shown:
        console.print(render_forest([ScopeTree("cache", "web", ref, "index-web", ())]))

    assert shown.get().startswith(title)
