"""The pages of the service that are no report, in its design. Texts are escaped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from maintainer.graph.reports import RunSummary
from maintainer.graph.schedule import TargetStatus
from maintainer.graph.summaries import Overview
from maintainer.report.html import environment, hashes_of, read_part
from maintainer.report.page.cells import Cell
from maintainer.report.trouble import format_trouble
from maintainer.report.verdict import LEVELS
from maintainer.report.words import format_ago, format_count, format_in, format_moment, format_size
from maintainer.sanitize import printable
from maintainer.serve.web.fleet import Fleet
from maintainer.serve.web.selection import ORDER, Selection

_HERE = Path(__file__).parent
_PARTS = ("report.css", "report.js")
_COLUMNS = ("target", "health", "results", "stored", "trend", "last run", "next run")
_NUMBERS = ("results", "stored", "last run", "next run")
_WIDTH, _HEIGHT = 100, 22


def page_sources() -> dict[str, str]:
    """Return what a content security policy must allow: the pages' own style and script."""
    style, script = (hashes_of([read_part(name)]) for name in _PARTS)
    return {"style": style, "script": script, "img": "data:"}


@dataclass(frozen=True, slots=True)
class _Row:
    """A target."""

    name: str
    level: str
    health: str
    why: str
    results: int | None
    used: int
    stored: str
    path: str
    ran: Cell
    next: Cell
    rule: str


def render_index(
    selection: Selection,
    trends: Mapping[str, Sequence[int]],
    runs: Iterable[RunSummary],
    now: datetime,
    *,
    refused: str = "",
) -> str:
    """Return the page: the status of the selected targets, problems first, and the last runs.

    `trends` are the bytes at the end of the last runs, by the names of caches; `refused` is why the
    configuration that was read last does not apply.
    """
    names = {one.status.target: one.status.name for _, one in selection.shown}
    rows = [
        _row(level, one, trends.get(one.status.target or "", ()), now)
        for level, one in selection.shown
    ]
    level, message = _summarize(selection.counts)
    return _render(
        "index.html.j2",
        now,
        title=_title_of_unknown(selection) if level == "none" else _NAMES[level],
        question="Are all caches healthy?",
        level=level,
        message=message,
        advice="",
        links=(
            ("all together", "/fleet"),
            ("metrics", "/metrics"),
            ("readiness", "/readyz"),
        ),
        columns=_COLUMNS,
        numbers=_NUMBERS,
        rows=rows,
        selection=selection,
        names=names,
        runs=list(runs),
        refused=printable(refused, limit=1_000),
        ago=partial(format_ago, now=now),
    )


def render_fleet(fleet: Fleet, now: datetime) -> str:
    """Return the page of all caches together."""
    level, message = _summarize(fleet.counts)
    quota = f" of {format_size(fleet.quota)}" if fleet.quota else ""
    return _render(
        "fleet.html.j2",
        now,
        title=f"{format_size(fleet.used)}{quota}",
        question="What do all caches take together?",
        level=level,
        message=message,
        advice="",
        links=(("all targets", "/"), ("metrics", "/metrics")),
        fleet=fleet,
        levels=_NAMES,
        why=partial(_why, now=now),
    )


def render_target(status: TargetStatus, now: datetime) -> str:
    """Return the page of a target that has no report yet: what happened, and what to do."""
    failed = status.last_status == "failed"
    return _render(
        "message.html.j2",
        now,
        title=LEVELS["bad"] if failed else "Not known yet",
        question=f"Is the cache of {status.name} healthy?",
        level="bad" if failed else "none",
        message=f"There is no report yet: {format_trouble(status, now) or 'it has not run yet'}.",
        advice=_ADVICE_IF_FAILED if failed else "",
        links=_BACK,
        facts=tuple(_facts(status, now)),
    )


_ADVICE_IF_FAILED = (
    "Correct what the message names. `maintainer doctor`, with the configuration and the "
    "environment of the service, checks tokens, permissions and addresses."
)
_BACK = (("all targets", "/"),)
_NAMES = {**LEVELS, "none": "Not known yet", "listed": "Only listed"}


def _facts(status: TargetStatus, now: datetime) -> Iterator[tuple[str, str, str]]:
    """Return the name, the text and the full text of what is known of a target."""
    yield "runs", status.rule, ""
    if status.last_finished_at:
        last = _moment(status.last_finished_at, now)
        yield "last attempt", f"{status.last_status}, {last.text}", last.title
    if status.running_since:
        since = _moment(status.running_since, now)
        yield "running", f"since {since.text}", since.title
    else:
        wait = format_in(status.next_run_at, now)
        yield "next attempt", wait, format_moment(status.next_run_at)


@dataclass(frozen=True, slots=True)
class Message:
    """What a page says that has nothing else to show."""

    title: str
    text: str
    advice: str


def render_message(message: Message, now: datetime) -> str:
    """Return a page for what does not exist, or cannot be shown."""
    return _render(
        "message.html.j2",
        now,
        title=message.title,
        question="What is here?",
        level="none",
        message=message.text,
        advice=message.advice,
        links=_BACK,
        facts=(),
    )


def _render(template: str, now: datetime, **values: object) -> str:
    style, script = map(read_part, _PARTS)
    values |= {"now": now, "style": style, "script": script}
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    return environment().overlay(loader=FileSystemLoader(_HERE))


def _summarize(counts: Mapping[str, int]) -> tuple[str, str]:
    """Return the level of the worst target, and how many there are of each."""
    parts = [_format_level(one, counts[one]) for one in ORDER if counts.get(one)]
    worst = next((level for level in ORDER if counts.get(level)), "none")
    targets = format_count(sum(counts.values()), "target")
    return worst, f"{targets}: {', '.join(parts) or 'none'}."


def _format_level(level: str, count: int) -> str:
    name = "need attention" if level == "attention" and count > 1 else _NAMES[level].lower()
    return f"{count:,} {name}"


def _title_of_unknown(selection: Selection) -> str:
    is_new = selection.total == selection.counts.get("none", 0)
    return "Nothing has run yet" if is_new else "Not all have run"


def _row(level: str, known: Overview, trend: Sequence[int], now: datetime) -> _Row:
    status, last = known.status, known.summary
    quota = f" of {format_size(last.quota)}" if last and last.quota is not None else ""
    return _Row(
        name=status.name,
        level=level,
        health=_health(known, level),
        why="" if level == "none" else _why(known, now),
        results=last.results if last else None,
        used=last.used if last else 0,
        stored=f"{format_size(last.used)}{quota}" if last else "",
        path=_path(trend),
        ran=_moment(status.last_finished_at, now),
        next=Cell(
            "running" if status.running_since else format_in(status.next_run_at, now),
            status.next_run_at.timestamp(),
            format_moment(status.next_run_at),
        ),
        rule=status.rule,
    )


def _health(known: Overview, level: str) -> str:
    if level == "none":
        return "running" if known.status.running_since else "has not run yet"
    return _NAMES[level]


def _why(known: Overview, now: datetime) -> str:
    if trouble := format_trouble(known.status, now):
        return trouble
    summary = known.summary
    return summary.message if summary and summary.level not in (None, "good") else ""


def _moment(moment: datetime | None, now: datetime) -> Cell:
    if moment is None:
        return Cell("", 0)
    return Cell(format_ago(moment, now), moment.timestamp(), format_moment(moment))


def _path(values: Sequence[int]) -> str:
    """Draw values as steps that start at zero."""
    if len(values) < 2:  # noqa: PLR2004 - a line has two ends
        return ""
    most, width = max(*values, 1), _WIDTH / (len(values) - 1)
    heights = [round(1 + _HEIGHT * (1 - value / most), 1) for value in values]
    return f"M0 {heights[0]}" + "".join(f"h{width:.2f}V{height}" for height in heights[1:])
