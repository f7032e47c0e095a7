"""The first page of a service with several targets, and the page of a target without a report."""

from datetime import UTC, datetime, timedelta

from maintainer.graph.reports import RunSummary
from maintainer.graph.schedule import TargetStatus
from maintainer.report import EntryTotal, RequestReport
from maintainer.report.model import ResultTotals, Space, SpacePart, Verdict
from maintainer.serve.web.figures import Figures, LastRun, TargetFigures
from maintainer.serve.web.pages import render_index, render_target

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
_GB = 1_000_000_000
_HEALTHY = Verdict("good", "Builds can use every cached result that still exists.")
_FULL = Verdict("attention", "The cache is 97.1 % full, so GitHub evicts soon.", "Free some space.")


def _status(name: str, *, ran: int | None, problem: str | None = None) -> TargetStatus:
    """Return the status of a target that ran so many hours ago."""
    ran_at = None if ran is None else NOW - timedelta(hours=ran)
    return TargetStatus(
        name=name,
        target=f"github:octo/{name}" if problem is None and ran is not None else None,
        rule="every 6h" if ran is not None else "cron 17 3 * * * UTC",
        next_run_at=NOW + timedelta(hours=5, minutes=30),
        due_at=NOW + timedelta(hours=5, minutes=30),
        misfire_grace_seconds=900,
        running_since=None,
        last_status="failed" if problem else "done" if ran is not None else None,
        last_finished_at=ran_at,
        last_run=ran,
        problem=problem,
        failures=3 if problem else 0,
        last_success_at=None if problem else ran_at,
        rate_limit_remaining=None,
    )


_BROKEN = _status("site", ran=1, problem="token_env names SITE_TOKEN, which is not set")


def _target(name: str, verdict: Verdict, used: float, results: int) -> TargetFigures:
    space = Space(10 * _GB, int(used * _GB), (SpacePart("free", "free", 0, 0),))
    figures = Figures(
        entries=(EntryTotal("reachable", 339, space.used),),
        requests=RequestReport({"list": 4}, 0),
        readable=("refs/heads/main",),
        results=ResultTotals(after=results),
        space=space,
        verdict=verdict,
    )
    last = LastRun(1, NOW, NOW, 0, figures)
    sizes = tuple(int(used * _GB * (20 + number % 7) / 23) for number in range(20))
    return TargetFigures(_status(name, ran=2), last, sizes)


def first_page() -> str:
    """Return the page that lists all targets."""
    targets = (
        _target("app", _FULL, 9.7, 304),
        _target("docs", _HEALTHY, 1.2, 25),
        TargetFigures(_BROKEN, None, ()),
        TargetFigures(_status("new", ran=None), None, ()),
    )
    runs = [
        RunSummary(
            run=number,
            target=f"github:octo/{'app' if number % 2 else 'docs'}",
            started_at=NOW - timedelta(hours=6 * (9 - number)),
            finished_at=NOW,
            status="failed" if number == 7 else "done",
            dry_run=number < 3,
            indexes_written=number % 3,
            entries_deleted=40 * (number % 3),
            bytes_deleted=300_000_000 * (number % 3),
            requests=41,
        )
        for number in range(9, 0, -1)
    ]
    return render_index(targets, runs, NOW)


def broken_page() -> str:
    """Return the page of a target without a report."""
    return render_target(_BROKEN, NOW)
