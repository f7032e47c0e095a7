"""The answer to `maintainer usage`, in a few tables."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from maintainer.report.grid import make_grid
from maintainer.report.usage import Usage, UsagePart, UsageRef
from maintainer.report.words import format_count, format_moment, format_share, format_size
from maintainer.sanitize import loggable

_NUMBERS = ("entries", "size", "share")
_ROWS = 10
"""The most rows of a table; of the others, only the number is shown."""


def render_usage(usage: Usage) -> Group:
    """Format where the space goes."""
    return Group(*_parts(usage))


def _parts(usage: Usage) -> Iterator[RenderableType]:
    entries = format_count(usage.entries, "entry")
    line = f"{format_size(usage.used)} {_use(usage)} by {entries}."
    yield Text(f"{loggable(usage.target)}: {line}", style="bold")
    for note in usage.notes:
        yield Text(f"Note: {loggable(note, limit=1_000)}")
    yield from _table("by tool", usage, usage.tools)
    yield from _table("by kind of ref", usage, usage.kinds)
    yield from _refs(usage)
    yield from _table("by scope of BuildKit, without layers", usage, usage.scopes)
    yield from _policies(usage)


def _use(usage: Usage) -> str:
    if usage.quota is None:
        return "are stored,"
    assumed = ", which is assumed" if usage.quota_is_assumed else ""
    share = format_share(usage.used / usage.quota) if usage.quota else "all"
    return f"of {format_size(usage.quota)}{assumed} are used ({share}),"


def _table(title: str, usage: Usage, parts: Sequence[UsagePart]) -> Iterator[RenderableType]:
    if not parts:
        return
    table = make_grid(("", *_NUMBERS, "last used"), _NUMBERS, title=title)
    for part in parts[:_ROWS]:
        table.add_row(Text(loggable(part.name or "other tools")), *_numbers(part, usage))
    yield table
    yield from _left(parts)


def _refs(usage: Usage) -> Iterator[RenderableType]:
    if not usage.refs:
        return
    table = make_grid(("", *_NUMBERS, "last used", ""), _NUMBERS, title="by ref")
    for part in usage.refs[:_ROWS]:
        name, why = Text(loggable(part.name)), Text(loggable(_closed(part)), style="yellow")
        table.add_row(name, *_numbers(part, usage), why)
    yield table
    yield from _left(usage.refs)


def _closed(part: UsageRef) -> str:
    return "closed" if part.closed else ""


def _policies(usage: Usage) -> Iterator[RenderableType]:
    if not usage.policies:
        yield Text("\nNo policy for a full cache would free anything.")
        return
    title = "what would free space, each on its own"
    table = make_grid(("settings", *_NUMBERS), _NUMBERS, title=title)
    for one in usage.policies[:_ROWS]:
        share = format_share(one.size / usage.used) if usage.used else ""
        table.add_row(Text(loggable(one.name)), f"{one.entries:,}", format_size(one.size), share)
    yield table
    yield from _left(usage.policies)


def _numbers(part: UsagePart, usage: Usage) -> tuple[str, ...]:
    share = format_share(part.size / usage.used) if usage.used else ""
    used_at = format_moment(part.last_used_at)
    return f"{part.entries:,}", format_size(part.size), share, used_at


def _left(parts: Sequence[object]) -> Iterator[Text]:
    if len(parts) > _ROWS:
        yield Text(f"  … and {len(parts) - _ROWS:,} more: see --json", style="dim")
