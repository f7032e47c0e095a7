"""The report as one HTML file that needs neither network nor JavaScript.

Untrusted texts pass two filters on every path into the page: characters that hide or move text are
made visible, then HTML is escaped. Charts are drawn from the tables beside them, so there is no
data in a script. The content security policy allows the scripts and styles of this package only.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from maintainer.report.model import IndexReport, Report, Space
from maintainer.report.page import COMMAND, QUESTIONS, changes, health, scopes, storage, trend
from maintainer.report.page.cells import Table
from maintainer.report.simulation import (
    Simulation,
    caches_table,
    format_simulation,
    found_table,
    quotas_table,
    stored_table,
)
from maintainer.report.verdict import LEVELS, judge
from maintainer.report.words import (
    format_count,
    format_digest,
    format_moment,
    format_share,
    format_size,
)
from maintainer.sanitize import printable

_HERE = Path(__file__).parent
_ROWS = 2_000
"""The maximum number of rows of a table; of the others, only the number is shown."""
_STYLES = ("vendor/uPlot.min.css", "report.css")
_SCRIPTS = ("vendor/uPlot.iife.min.js", "report.js")
_UNIT = re.compile(r"(?<=\d) (?=(?:B|[kMGTP]B|%)(?!\w))")
_LONGEST = 2_000
"""The maximum length of one text."""
_FAR = 5
"""If the quota is more than so many times what is stored, the bar shows what is stored."""
_END = 999.0
_TOOLS = 6
"""The number of colours for other tools."""


def render_html(
    report: Report,
    simulation: Simulation | None = None,
    *,
    links: Iterable[tuple[str, str]] = (),
    notice: str = "",
) -> str:
    """Return the content of the file; with a simulation, also that.

    The pages of a service have links, and may have a notice.
    """
    styles, scripts = [read_part(name) for name in _STYLES], [read_part(name) for name in _SCRIPTS]
    verdict = report.verdict or judge(report)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            links=tuple(links),
            notice=notice,
            verdict=verdict,
            level=LEVELS[verdict.level],
            questions=QUESTIONS,
            policy=_policy(styles, scripts),
            styles=styles,
            scripts=scripts,
            tiles=health.tiles(report),
            space=storage.space_table(report),
            more_space=(storage.refs_table(report), storage.used_table(report)),
            no_space=storage.why_no_space(report),
            bar=_bar(report.space) if report.space else (),
            quota_mark=_quota_mark(report.space) if report.space else None,
            changes=changes.format_changes(report),
            happened=[
                changes.written_table(report, _ROWS),
                *changes.happened_tables(report, _ROWS),
            ],
            actions=changes.actions_table(report, _ROWS),
            scopes_line=scopes.format_scopes(report),
            scopes=scopes.scopes_table(report, _ROWS),
            no_scopes=scopes.why_no_scopes(report),
            listed_scopes=storage.listed_scopes_table(report),
            scopes_note=scopes.SCOPES_NOTE,
            trees=_trees(report),
            trend=trend.trend_table(report, _ROWS),
            trend_line=trend.format_trend(report),
            evictions=trend.evictions_table(report, _ROWS),
            requests=trend.format_requests(report),
            evictions_line=trend.format_evictions(report),
            headroom_line=trend.format_headroom(report),
            simulated=_simulated(simulation) if simulation else None,
            took=trend.format_took(report),
        )
    )


@dataclass(frozen=True, slots=True)
class _Simulated:
    """What is shown of a simulation."""

    lines: tuple[str, ...]
    found: Table
    caches: Table
    charts: tuple[tuple[str, Table], ...]
    """Those over time, by the kind of their chart."""
    policies: tuple[str, ...]
    """What each of them does."""
    notes: tuple[str, ...]


def _simulated(simulation: Simulation) -> _Simulated:
    charts = ("found", found_table(simulation)), ("stored", stored_table(simulation))
    lines = tuple(format_simulation(simulation))
    found, caches = quotas_table(simulation), caches_table(simulation)
    policies = len({one.policy for one in simulation.caches})
    notes = simulation.notes
    return _Simulated(lines, found, caches, charts, notes[:policies], notes[policies:])


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the bar, which is a thousand wide."""

    kind: str
    x: float
    width: float
    label: str


def _scale(space: Space) -> int:
    """Return how many bytes the bar shows: a quota that is far away would leave nothing to see."""
    quota = space.quota or 0
    return space.used if quota > _FAR * space.used > 0 else max(quota, space.used, 1)


def _quota_mark(space: Space) -> float | None:
    """Return where the quota is on the bar; None if it is at its end, or far behind it."""
    at = (space.quota or 0) / _scale(space) * 1_000
    return round(at, 2) if space.quota is not None and at < _END else None


def _bar(space: Space) -> list[Segment]:
    """Place the parts side by side; each part that is not empty is visible."""
    whole = _scale(space)
    segments: list[Segment] = []
    x, tools = 0.0, 0
    for part in space.parts:
        width = part.size / whole * 1_000
        if part.kind != "free" and part.size:
            width = max(width, 3.0)
        width = max(0.0, min(width, 1_000 - x))
        kind: str = part.kind
        if kind == "foreign":
            kind, tools = f"foreign-{tools % _TOOLS}", tools + 1
        label = f"{part.name}: {format_size(part.size)}"
        segments.append(Segment(kind, round(x, 2), round(width, 2), label))
        x += width
    return segments


def _trees(report: Report) -> list[IndexReport]:
    """Return the indexes that have a tree, the largest first."""
    trees = [index for index in report.indexes if index.chains]
    return sorted(trees, key=lambda index: (-index.bytes_usable, index.scope, index.ref))[:_ROWS]


@cache
def environment() -> Environment:
    """Return what renders pages of this design; every text is made visible and escaped."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "use": storage.format_use,
        "size": format_size,
        "share": format_share,
        "time": format_moment,
        "count": format_count,
        "digest": format_digest,
        "coded": _coded,
        "needed_by": scopes.format_needed_by,
    }
    return environment


def _shown(value: object) -> object:
    """Make characters visible that hide or reverse text, and keep units with their numbers.

    HTML is escaped after this.
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNIT.sub("\N{NO-BREAK SPACE}", printable(value, _LONGEST))
    return value


def _coded(text: str) -> Markup:
    """Mark our commands up as code, but no other text in backticks."""
    pieces = COMMAND.split(_UNIT.sub("\N{NO-BREAK SPACE}", printable(text, _LONGEST)))
    templates = (Markup("<code>{}</code>") if at % 2 else Markup("{}") for at in range(len(pieces)))
    shown = (template.format(piece) for template, piece in zip(templates, pieces, strict=True))
    return Markup("").join(shown)


@cache
def read_part(name: str) -> Markup:
    """Read a file of this package, which goes into the page unchanged."""
    return Markup((_HERE / name).read_text(encoding="utf-8").strip())  # noqa: S704 - our own text


def _policy(styles: list[Markup], scripts: list[Markup]) -> Markup:
    """Allow only the styles and scripts of this package."""
    policy = (
        f"default-src 'none'; style-src {hashes_of(styles)}; script-src {hashes_of(scripts)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return Markup(policy)  # noqa: S704 - no text from elsewhere is in it


def hashes_of(texts: list[Markup]) -> str:
    """Return the sources by which a content security policy allows these texts."""
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
