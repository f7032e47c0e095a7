"""The report as Markdown, for a workflow's job summary (`GITHUB_STEP_SUMMARY`).

Only characters that would be syntax where they stand become numeric entities, which Markdown
parsers never treat as syntax. Keys and refs are in `<code>`, where GitHub creates no mentions or
links.
"""

import re
from collections.abc import Iterable, Iterator

from maintainer.cacheconfig import NO_REF
from maintainer.report.model import IndexReport, Report
from maintainer.report.page import COMMAND, QUESTIONS, changes, scopes, storage, trend
from maintainer.report.page.cells import Cell, Table
from maintainer.report.verdict import LEVELS, judge
from maintainer.report.words import format_count, format_moment, format_size
from maintainer.sanitize import printable

MAX_BYTES = 1024**2
"""GitHub refuses a longer summary of a step."""

_ROWS = 50
_TREES = 20
_LONGEST = 600
_CUT = "\n\n… the rest is too long for a job summary: see `maintainer report`\n"
_SYNTAX = re.compile(
    r"[*<\[\\|~$`@]"
    r"|&(?=#?\w+;)"  # an entity
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it is none
    r"|\.(?=[^\W\d_])|:(?=//)"  # links without brackets
)
_START = re.compile(r"^(\d*)(>|[-+.)](?=[-\s]|$)|=(?=[=\s]|$))")
"""What makes a list, a heading or a quotation of a paragraph that begins with it."""
_SYMBOLS = {"good": "✅", "attention": "⚠️", "bad": "❌"}
_NAMES = frozenset(
    {
        "index",
        "ref",
        "missing blob",
        "entry",
        "scope",
        "scopes",
        "tag",
        "name",
        "layers",
        "needed by",
    }
)
"""The columns with untrusted names."""


def render_markdown(report: Report) -> str:
    """Return the summary, of at most MAX_BYTES bytes."""
    return _within_limit("\n\n".join(_parts(report)) + "\n")


def _within_limit(text: str) -> str:
    if len(text.encode()) <= MAX_BYTES:
        return text
    room = MAX_BYTES - len(_CUT.encode())
    whole_lines = text.encode()[:room].decode(errors="ignore").rpartition("\n")[0]
    return whole_lines + _CUT


def _parts(report: Report) -> Iterator[str]:
    yield from _verdict(report)
    for number, answer in enumerate((_space, _happened, _scopes, _trend), 1):
        yield f"### {QUESTIONS[number]}"
        yield from answer(report)
    yield f"<sub>{_say(trend.format_requests(report))}</sub>"


def _verdict(report: Report) -> Iterator[str]:
    verdict = report.verdict or judge(report)
    yield f"## {_SYMBOLS[verdict.level]} {LEVELS[verdict.level]}"
    yield _say(verdict.message)
    if verdict.advice:
        yield f"**To do:** {_say(verdict.advice)}"
    dry = ", a dry run," if report.dry_run else ""
    began = _say(format_moment(report.started_at))
    yield f"Run {report.run}{dry} on {_code(report.target)}, {began}"
    for problem in report.problems:
        yield f"**Problem:** {_say(problem)}"
    for note in report.notes:
        yield f"**Note:** {_say(note.sentence)}"


def _space(report: Report) -> Iterator[str]:
    table = storage.space_table(report)
    if report.space is None or table is None:
        yield storage.why_no_space(report)
        return
    yield f"**{format_size(report.space.used)}** {storage.format_use(report.space)}"
    yield from _table(table)
    yield from _table(storage.refs_table(report))
    yield from _table(storage.used_table(report))


def _happened(report: Report) -> Iterator[str]:
    for line in changes.format_changes(report):
        yield _say(line)
    yield from _table(changes.written_table(report, _ROWS))
    for table in changes.happened_tables(report, _ROWS):
        yield from _table(table)


def _scopes(report: Report) -> Iterator[str]:
    if not report.indexes:
        yield scopes.why_no_scopes(report)
        yield from _table(storage.listed_scopes_table(report))
        return
    if line := scopes.format_scopes(report):
        yield _say(line)
    yield from _table(scopes.scopes_table(report, _ROWS))
    yield _say(scopes.SCOPES_NOTE)
    largest = sorted(report.indexes, key=lambda index: (-index.bytes_usable, index.scope))
    for index in [one for one in largest if one.chains][:_TREES]:
        yield from _chains(index)


def _chains(index: IndexReport) -> Iterator[str]:
    place = f" in {_code(index.ref)}" if index.ref != NO_REF else ""
    title = f"{_code(index.scope)}{place}: {format_size(index.bytes_usable)}"
    yield f"<details><summary>The largest layer chains of {title}</summary>"
    yield from _table(scopes.chains_table(index))
    if index.chains_omitted:
        yield f"… and {format_count(index.chains_omitted, 'smaller chain')}"
    yield "</details>"


def _trend(report: Report) -> Iterator[str]:
    yield _say(trend.format_trend(report))
    yield _say(trend.format_evictions(report))
    if line := trend.format_headroom(report):
        yield _say(line)
    yield "<details><summary>The numbers</summary>"
    yield from _table(trend.trend_table(report, _ROWS))
    yield from _table(trend.evictions_table(report, _ROWS))
    yield "</details>"


def _table(table: Table) -> Iterator[str]:
    if not table.rows:
        return
    if table.title:
        yield f"**{_say(table.title)}**"
    names = _row(_say(name) for name in table.columns)
    line = _row("--:" if name in table.numbers else ":--" for name in table.columns)
    rows = (
        _row(_cell(cell, name) for cell, name in zip(row, table.columns, strict=True))
        for row in table.rows
    )
    yield "\n".join([names, line, *rows])
    if table.omitted:
        yield f"… and {format_count(table.omitted, 'more row')}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell, column: str) -> str:
    if column not in _NAMES:
        return _say(cell.text)
    text = cell.text.lstrip(" ")
    return "&emsp;" * ((len(cell.text) - len(text)) // 4) + _code(text)


def _say(text: str) -> str:
    """Format a sentence; words that GitHub would turn into mentions or links become code."""
    pieces = COMMAND.split(printable(text, _LONGEST))
    said = "".join(_code(one) if at % 2 else _words(one) for at, one in enumerate(pieces))
    return _START.sub(lambda match: f"{match[1]}&#{ord(match[2])};", said)


def _words(text: str) -> str:
    words = text.split(" ")
    return " ".join(_code(word) if set(word) & set("@#`") else _escaped(word) for word in words)


def _code(text: str) -> str:
    return f"<code>{_escaped(printable(text, _LONGEST))}</code>" if text else ""


def _escaped(text: str) -> str:
    return _SYNTAX.sub(lambda match: f"&#{ord(match[0])};", text)
