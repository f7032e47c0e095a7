"""The index page, with links to all reports. Untrusted text is escaped."""

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from html import escape

from maintainer.graph.reports import RunSummary
from maintainer.graph.schedule import TargetStatus
from maintainer.report.words import format_moment, format_size
from maintainer.sanitize import printable

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884;
  vertical-align: top }
.number { text-align: right; font-variant-numeric: tabular-nums }
.good { color: light-dark(#176b2c, #6fd08c) } .bad { color: light-dark(#a8201a, #ff8f87) }
"""
INDEX_STYLE = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""The source that a content security policy must allow for the page's style."""


def render_index(
    statuses: Iterable[TargetStatus], runs: Iterable[RunSummary], now: datetime
) -> str:
    """Return the page: the status of each target, and the last runs."""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>maintainer</title>
<style>{_STYLE}</style>
<h1>maintainer</h1>
<h2>Targets</h2>
<table>
<tr><th>target<th>status<th>last run<th>next run<th>rule
{"".join(_target(status, now) for status in statuses)}</table>
<h2>Last runs</h2>
<table>
<tr><th>run<th>cache<th>started<th>status<th class="number">written<th class="number">deleted
<th class="number">freed
{"".join(_run(run) for run in runs)}</table>
<p><a href="/metrics">metrics</a> · <a href="/readyz">readiness</a></p>
</html>
"""


def _target(status: TargetStatus, now: datetime) -> str:
    complaint = status.complaint(now)
    state = f'<span class="bad">{_text(complaint)}</span>' if complaint else _healthy(status)
    return (
        f'<tr><td><a href="/targets/{escape(status.name)}">{escape(status.name)}</a>'
        f"<td>{state}<td>{_time(status.last_finished_at)}"
        f"<td>{_time(status.next_run_at)}<td>{_text(status.rule)}\n"
    )


def _healthy(status: TargetStatus) -> str:
    if status.running_since:
        return "running"
    if status.last_status is None:
        return "has not run yet"
    return f'<span class="good">{_text(status.last_status)}</span>'


def _run(run: RunSummary) -> str:
    number = f'<a href="/runs/{run.run}">{run.run}</a>' if run.finished_at else str(run.run)
    return (
        f"<tr><td>{number}<td>{_text(run.target)}<td>{_time(run.started_at)}<td>{_text(run.status)}"
        f'<td class="number">{run.indexes_written}<td class="number">{run.entries_deleted}'
        f'<td class="number">{format_size(run.bytes_deleted)}\n'
    )


def _time(moment: datetime | None) -> str:
    return "" if moment is None else format_moment(moment)


def _text(text: str) -> str:
    return escape(printable(text, limit=1_000))
