"""The first page of a service with several targets, and the page of a target without a report."""

from datetime import UTC, datetime, timedelta

from maintainer.graph.reports import RunSummary
from maintainer.graph.schedule import TargetStatus
from maintainer.graph.summaries import Overview, Summary
from maintainer.report.model import Verdict
from maintainer.serve.web.pages import render_index, render_target
from maintainer.serve.web.selection import Query, choose

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
_GB = 1_000_000_000
_HEALTHY = Verdict("good", "Builds can use every cached result that still exists.")
_FULL = Verdict("attention", "The cache is 97.1 % full, so GitHub evicts soon.", "Free some space.")


def status_of(name: str, *, ran: int | None, problem: str | None = None) -> TargetStatus:
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


_BROKEN = status_of("site", ran=1, problem="token_env names SITE_TOKEN, which is not set")


def _target(name: str, verdict: Verdict, used: float, results: int) -> Overview:
    summary = Summary(1, verdict.level, verdict.message, int(used * _GB), 10 * _GB, results)
    return Overview(status_of(name, ran=2), summary)


def first_page() -> str:
    """Return the page that lists all targets."""
    targets = (
        _target("app", _FULL, 9.7, 304),
        _target("docs", _HEALTHY, 1.2, 25),
        Overview(_BROKEN, None),
        Overview(status_of("new", ran=None), None),
    )
    trends = {
        f"github:octo/{name}": [int(used * _GB * (20 + number % 7) / 23) for number in range(20)]
        for name, used in (("app", 9.7), ("docs", 1.2))
    }
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
            bytes_freed=300_000_000 * (number % 3),
            requests=41,
        )
        for number in range(9, 0, -1)
    ]
    return render_index(choose(targets, Query(), NOW), trends, runs, NOW)


def broken_page() -> str:
    """Return the page of a target without a report."""
    return render_target(_BROKEN, NOW)
