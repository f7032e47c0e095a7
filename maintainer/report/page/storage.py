"""What takes the space?"""

from collections import Counter
from collections.abc import Sequence

from maintainer.report.model import (
    NamedSpace,
    Report,
    Space,
)
from maintainer.report.page.cells import (
    Cell,
    Table,
    day_cell,
    number_cell,
    size_cell,
    table_of,
)
from maintainer.report.space import KINDS, kind_of
from maintainer.report.words import (
    format_count,
    format_share,
    format_size,
)


def why_no_space(report: Report) -> str:
    """Return why there is no quota to divide; for a directory, also what it stores."""
    if report.saw_nothing:
        return "The run ended before it knew what is stored."
    noun = report.store.noun
    if report.store.evicted_by:
        return f"This {noun} cannot list what it stores."
    entries, sizes = Counter[str](), Counter[str]()
    for one in report.entries:
        entries[kind_of(one.state)] += one.entries
        sizes[kind_of(one.state)] += one.size
    parts = [
        f"{format_size(sizes[kind])} in {format_count(entries[kind], f'{kind} entry')}"
        for kind in KINDS
        if entries[kind]
    ]
    return f"A {noun} has no quota. It stores {', '.join(parts) or 'nothing'}."


def format_quota(space: Space) -> str:
    """Return how much may be stored, and whether that is only assumed."""
    size = format_size(space.quota or 0)
    return f"an assumed {size}" if space.quota_is_assumed else size


def format_use(space: Space) -> str:
    """Return what follows the size of what is stored, in a sentence."""
    return "are stored." if space.quota is None else f"of {format_quota(space)} are used."


def space_table(report: Report) -> Table | None:
    """Return what takes the space; None where the store cannot list."""
    if report.space is None:
        return None
    quota = report.space.quota
    whole = report.space.used if quota is None else quota
    whose = " (another tool)" if report.store.numbered else ""  # Names may expire by rules, too.
    rows = []
    for part in report.space.parts:
        name = f"{part.name}…{whose}" if part.kind == "foreign" else part.name
        entries = Cell("", 0) if part.kind == "free" else number_cell(part.entries)
        share = part.size / whole if whole else 0.0
        rows.append((Cell(name), entries, size_cell(part.size), Cell(format_share(share), share)))
    columns = ("what", "entries", "size", "of all" if quota is None else "of the quota")
    return table_of("", columns, columns[1:], rows, len(rows))


def refs_table(report: Report) -> Table:
    """Return which refs take the space; nothing if it is all in one."""
    refs = report.space.refs if report.space else ()
    title = "By branch, tag and pull request"
    return _named_table(title, "ref", refs if len(refs) > 1 else ())


def listed_scopes_table(report: Report) -> Table:
    """Return what the indexes of each scope take, if the list of entries is all that is known."""
    scopes = report.space.scopes if report.space and not report.indexes else ()
    return _named_table("Indexes by scope, without layers", "scope", scopes)


def _named_table(title: str, name: str, parts: Sequence[NamedSpace]) -> Table:
    """Return what each part takes, and its share of all of them."""
    used = sum(one.size for one in parts)
    rows = [
        (
            Cell(one.name or f"all other {name}s"),
            number_cell(one.entries),
            size_cell(one.size),
            Cell(format_share(one.size / used), one.size / used) if used else Cell("", 0),
        )
        for one in parts
    ]
    columns = (name, "entries", "size", "share")
    return table_of(title, columns, columns[1:], rows, len(rows))


def used_table(report: Report) -> Table:
    """Return when what is stored was last used, the newest first."""
    days = report.space.used_days if report.space else ()
    used = sum(day.size for day in days)
    rows = [
        (
            Cell("earlier", 0) if one.day is None else day_cell(one.day),
            number_cell(one.entries),
            size_cell(one.size),
            Cell(format_share(one.size / used), one.size / used) if used else Cell("", 0),
        )
        for one in days
    ]
    columns = ("day", "entries", "size", "share")
    return table_of("When it was last used", columns, columns[1:], rows, len(rows))
