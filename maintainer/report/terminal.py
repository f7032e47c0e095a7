"""The report on a terminal: one page that says what was done, to what, and why."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from maintainer.graph.runs import RunSummary
from maintainer.report.model import ActionReport, IndexReport, Report
from maintainer.text import printable

_ROWS = 12
"""Rows of a table, beyond which only their number is told."""


def render_report(report: Report) -> RenderableType:
    """Lay a report out."""
    return Group(*_parts(report))


def render_runs(runs: Iterable[RunSummary]) -> RenderableType:
    """Lay a list of runs out, newest first."""
    table = _table("run", "target", "started", "took", "status", "written", "deleted", "freed")
    for run in runs:
        took = (
            f"{(run.finished_at - run.started_at).total_seconds():.1f} s" if run.finished_at else ""
        )
        table.add_row(
            str(run.run),
            _text(run.target),
            _time(run.started_at),
            took,
            f"{run.status}{', dry run' if run.dry_run else ''}",
            str(run.indexes_written),
            str(run.entries_deleted),
            decimal(run.bytes_deleted),
        )
    return table


def verdict(report: Report) -> str:
    """Say in one line how the cache is."""
    if report.status != "done":
        return f"the run {report.status}: {report.problems[0] if report.problems else ''}"
    writes = [action for action in report.actions if action.kind == "write"]
    deletes = [action for action in report.actions if action.kind == "delete"]
    if not writes and not deletes:
        return "nothing to do: every index says all that can be used, and nothing is overdue"
    size = decimal(sum(action.size or 0 for action in deletes))
    if report.dry_run:
        return f"would write {len(writes)} and delete {len(deletes)} entries ({size})"
    return (
        f"wrote {report.indexes_written} of {len(writes)} indexes, "
        f"deleted {len(report.deleted)} of {len(deletes)} entries ({decimal(report.bytes_freed)})"
    )


def _parts(report: Report) -> Iterator[RenderableType]:
    dry = ", dry run" if report.dry_run else ""
    yield Text(f"run {report.run}{dry} on {printable(report.target)}, {_time(report.started_at)}")
    yield Text(verdict(report), style="bold green" if report.status == "done" else "bold red")
    for problem in report.problems:
        yield Text(f"problem: {printable(problem, limit=1_000)}", style="red")
    if report.indexes:
        yield _indexes(report.indexes)
    if report.entries:
        yield _entries(report)
    yield from _actions("deleted" if not report.dry_run else "to delete", report, "delete")
    yield from _kept(report.actions)
    counts = ", ".join(f"{n} {kind}" for kind, n in report.requests.counts.items())
    yield Text(f"requests: {report.requests.total} ({counts}), {report.requests.retries} retries")


def _indexes(indexes: Sequence[IndexReport]) -> Table:
    table = _table("scope", "ref", "generations", "usable keys", "missing blobs", "outcome")
    table.title = "indexes"
    for index in indexes:
        scope = f"{index.scope} (signed)" if index.signed else index.scope
        written = f"{index.written} {index.outcome}: " if index.written else ""
        table.add_row(
            _text(scope),
            _text(index.ref),
            str(index.generations),
            f"{index.usable_before} → {index.usable_after}",
            str(index.blobs_missing),
            _text(f"{written}{index.reason}"),
        )
    return table


def _entries(report: Report) -> Table:
    table = _table("state", "entries", "size")
    table.title = "what is stored now"
    for total in report.entries:
        table.add_row(total.state, str(total.entries), decimal(total.size))
    return table


def _actions(title: str, report: Report, kind: str) -> Iterator[RenderableType]:
    actions = [action for action in report.actions if action.kind == kind]
    actions.sort(key=lambda action: (-(action.size or 0), action.subject))
    if not actions:
        return
    table = _table("key", "ref", "size", "outcome", "why")
    table.title = f"{title}: {len(actions)}{', the largest first' if len(actions) > 1 else ''}"
    for action in actions[:_ROWS]:
        size = "" if action.size is None else decimal(action.size)
        table.add_row(
            _text(action.subject),
            _text(action.ref),
            size,
            _text(action.outcome),
            _text(action.reason),
        )
    yield table
    if len(actions) > _ROWS:
        yield Text(f"… and {len(actions) - _ROWS} more: see `maintainer report --json`")


def _kept(actions: Iterable[ActionReport]) -> Iterator[RenderableType]:
    """Group what is kept by the reason: there may be thousands of them."""
    groups: defaultdict[str, list[ActionReport]] = defaultdict(list)
    for action in actions:
        if action.kind == "keep" and action.store_id is not None:
            groups[action.reason].append(action)
    if not groups:
        return
    table = _table("entries", "size", "why")
    table.title = "kept although nothing needs them"
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    for reason, members in largest[:_ROWS]:
        size = sum(member.size or 0 for member in members)
        table.add_row(str(len(members)), decimal(size), _text(reason))
    yield table
    if len(largest) > _ROWS:
        rest = sum(len(members) for _, members in largest[_ROWS:])
        yield Text(f"… and {rest} more for {len(largest) - _ROWS} other reasons")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for name in columns:
        right = name in {"entries", "size", "generations", "missing blobs", "run", "took", "freed"}
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table


def _text(text: str) -> Text:
    """Show anybody's text: as it is, with no markup, and nothing that a terminal obeys."""
    return Text(printable(text, limit=300))


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
