"""What is in each scope?"""

from maintainer.cacheconfig import NO_REF
from maintainer.report.model import (
    ChainRow,
    IndexReport,
    Report,
)
from maintainer.report.page.cells import (
    Cell,
    Table,
    age_cell,
    change_cell,
    number_cell,
    of_store,
    size_cell,
    table_of,
)
from maintainer.report.words import (
    format_count,
    format_digest,
    format_share,
    format_size,
)

SCOPES_NOTE = (
    "Keys: cache keys that builders look up; some only lead to others. Usable: those whose result "
    "exists. Lost: results that this run dropped, in each index that had them. Own: the part of "
    "the size that no other index needs, apart from a merge. Shared: the rest of it."
)
_OF_SCOPES = (
    "scope",
    "ref",
    "generations",
    "keys",
    "usable",
    "lost",
    "size",
    "own",
    "shared",
    "newest",
)


def why_no_scopes(report: Report) -> str:
    """Return why there is no index to show."""
    if report.saw_nothing:
        return "The run ended before it had read an index."
    if not report.store.numbered:
        return f"The {report.store.noun} has no {report.store.noun_of_name}s."
    if not report.readable:
        return "Without a runtime token, a run cannot read indexes."
    return "The token cannot read any index."


def scopes_table(report: Report, limit: int) -> Table:
    """Return the state of each scope in each ref."""
    rows = [
        (
            Cell(f"{index.scope} (signed)" if index.signed else index.scope),
            Cell(index.ref),
            change_cell(index.generations, index.generations_after),
            number_cell(index.keys),
            change_cell(index.usable_before, index.usable_after),
            number_cell(index.results_lost),
            size_cell(index.bytes_usable),
            size_cell(index.bytes_own),
            size_cell(index.bytes_usable - index.bytes_own),
            age_cell(index.newest_at, report.finished_at),
        )
        for index in report.indexes
    ]
    return of_store(report, table_of("", _OF_SCOPES, _OF_SCOPES[2:], rows, limit))


def format_place(index: IndexReport) -> str:
    """Return the name of an index, with its ref if there are refs."""
    return index.scope if index.ref == NO_REF else f"{index.scope} in {index.ref}"


def chains_table(index: IndexReport) -> Table:
    """Draw the largest layer chains of an index; a layer is indented below its parent."""
    rows = [
        (
            Cell(
                f"{'    ' * row.depth}{format_digest(row.digest)}{_and_more(row.layers - 1)}",
                title=row.digest,
            ),
            size_cell(row.size),
            Cell(format_share(row.share), row.share),
            number_cell(row.results),
            Cell(format_needed_by(row)),
        )
        for row in index.chains
    ]
    columns = ("layers", "size", "share", "results here", "needed by")
    return table_of("", columns, columns[1:4], rows, len(rows))


def format_needed_by(row: ChainRow) -> str:
    """Return the scopes that need a chain."""
    more = f" and {row.needed_by_omitted:,} more" if row.needed_by_omitted else ""
    return f"{', '.join(row.needed_by)}{more}"


def format_scopes(report: Report) -> str:
    """Return in one line what all indexes have together; nothing if that is one index."""
    if len(report.indexes) < 2:  # noqa: PLR2004 - together they are several
        return ""
    results = report.results
    began = "" if results.before == results.after else f" ({results.before:,} when the run began)"
    have = "would have" if report.dry_run else "have"
    return (
        f"Together they {have} {format_count(results.after, 'result')} that builds can use{began}, "
        f"in {format_size(results.size)}: each counts once here, although indexes share them."
    )


def _and_more(layers: int) -> str:
    return f" and {format_count(layers, 'smaller layer')}" if layers else ""
