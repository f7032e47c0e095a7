"""What takes the space, by kinds of entries; of a quota, also what is free. Pure."""

import re
from collections.abc import Iterable

from maintainer.model.marks import State
from maintainer.report.model import EntryTotal, Kind, Space, SpacePart

_TOOLS = 6
"""Up to this many other tools are listed one by one."""
_SEPARATOR = re.compile(r"([-_/|.:#+=, ]+)")
_HASH = re.compile(r"[0-9a-fA-F]{7,}|\d+")
_SEGMENTS = 2
_LONGEST = 40

_KINDS: dict[str, Kind] = {
    State.REACHABLE: "reachable",
    State.NEWEST: "reachable",
    State.SIGNED: "reachable",
    State.WITHOUT_CONTENT: "dangling",
    State.DANGLING: "dangling",
    State.SUPERSEDED: "superseded",
    State.UNREAD: "unread",
    State.UNREADABLE: "unreadable",
    State.CLOSED: "unreadable",
    State.FOREIGN: "foreign",
}
_NAMES: dict[Kind, str] = {
    "reachable": "reachable",
    "due": "due for deletion",
    "dangling": "dangling, within its grace period",
    "superseded": "superseded indexes, within their grace period",
    "unread": "could not be read this time",
    "unreadable": "in refs that the token cannot read",
}
KINDS: tuple[Kind, ...] = (*_NAMES, "foreign")
"""The kinds of entries that a quota is divided into."""


def kind_of(state: str) -> Kind:
    """Return the kind of an entry in this state."""
    return _KINDS.get(state, "foreign")


def tool_of(key: str) -> str:
    """Return the common beginning of another tool's keys: `setup-node-`, `v0-rust-`.

    At most two words, none of which looks like a hash or a number; empty if there is none.
    """
    pieces = _SEPARATOR.split(key[:512])
    words: list[str] = []
    for word in pieces[0 : 2 * _SEGMENTS : 2]:
        if not word or _HASH.fullmatch(word):
            break
        words.append(word)
    end = 2 * len(words) - 1
    prefix = "".join(pieces[:end]) if words else ""
    ends_in_separator = bool(words) and len(pieces) > end
    return f"{prefix}{pieces[end][:1]}"[:_LONGEST] if ends_in_separator else prefix[:_LONGEST]


def count_tool(tools: dict[str, EntryTotal], key: str, size: int) -> None:
    """Add an entry of another tool to the total of its tool."""
    tool = tool_of(key)
    known = tools.get(tool, EntryTotal(tool, 0, 0))
    tools[tool] = EntryTotal(tool, known.entries + 1, known.size + size)


def divide(
    quota: int | None,
    totals: Iterable[EntryTotal],
    *,
    due: Iterable[EntryTotal],
    foreign: Iterable[EntryTotal],
) -> Space:
    """Divide what is stored, or the quota if there is one.

    `due` is what a run would delete; `foreign` are the totals of other tools without that, as
    `count_tool` has added them up.
    """
    ours = {kind: SpacePart(kind, name, 0, 0) for kind, name in _NAMES.items()}
    for total in totals:
        for kind in ours.keys() & {kind_of(total.state)}:
            ours[kind] = _add(ours[kind], total.entries, total.size)
    for total in due:
        for kind in ours.keys() & {kind_of(total.state)}:
            ours[kind] = _add(ours[kind], -total.entries, -total.size)
            ours["due"] = _add(ours["due"], total.entries, total.size)
        if kind_of(total.state) == "foreign":
            ours["due"] = _add(ours["due"], total.entries, total.size)
    parts = [
        part for part in ours.values() if part.entries or part.size or part.kind == "reachable"
    ]
    parts += _tools(foreign)
    used = sum(part.size for part in parts)
    if quota is not None:
        parts.append(SpacePart("free", "free", 0, max(0, quota - used)))
    return Space(quota=quota, used=used, parts=tuple(parts))


def _tools(foreign: Iterable[EntryTotal]) -> list[SpacePart]:
    """Return other tools, the largest first; small and unknown ones are added up."""
    tools = [SpacePart("foreign", one.state, one.entries, one.size) for one in foreign]
    known = sorted((t for t in tools if t.name), key=lambda part: (-part.size, part.name))
    others = SpacePart("others", "other tools", 0, 0)
    for part in (*known[_TOOLS:], *(tool for tool in tools if not tool.name)):
        others = _add(others, part.entries, part.size)
    return known[:_TOOLS] + ([others] if others.entries else [])


def _add(part: SpacePart, entries: int, size: int) -> SpacePart:
    return SpacePart(part.kind, part.name, part.entries + entries, part.size + size)
