"""The commands that show what the database knows: `report`, `why`, `tree`, `diff`, `runs`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maintainer.cli.options import ConfigOption, DatabaseOption, JsonOption, TargetOption
from maintainer.cli.output import print_json, print_layout
from maintainer.errors import MaintainerError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from maintainer.report import Report


def report(
    *,
    run: Annotated[
        int | None, typer.Option(help="Its number. [default: the last one]", metavar="NUMBER")
    ] = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, as for a workflow's job summary.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as one HTML file.", metavar="FILE")
    ] = None,
    open_it: Annotated[
        bool, typer.Option("--open", help="Show the HTML file in a browser; needs --html.")
    ] = False,
) -> None:
    """Show the report of a run: is the cache healthy, and if not, what is there to do?"""
    from maintainer.cli.opening import find_cache, reading
    from maintainer.graph.reports import load_report

    if json + markdown + (html is not None) > 1:
        raise UsageError("--json, --markdown and --html exclude each other")
    if run is not None and target is not None:
        raise UsageError("--run and --target exclude each other")
    if open_it and html is None:
        raise UsageError("--open needs --html FILE")
    with reading(config, database) as connection:
        found = load_report(connection, run, target=find_cache(connection, target))
        page = "" if html is None else _render_page(connection, found)
    if json:
        print_json(found)
    elif markdown:
        from maintainer.report.markdown import render_markdown

        sys.stdout.write(render_markdown(found))
    elif html is not None:
        from maintainer.report.files import write_atomically

        write_atomically(html, page)
        if open_it:
            _open(html)
    else:
        from maintainer.report.terminal import render_report

        print_layout(render_report(found))


def _render_page(connection: "Connection", report: "Report") -> str:
    from maintainer.report.html import render_html
    from maintainer.stages.simulating import simulate_reported

    return render_html(report, simulate_reported(connection, report))


def _open(page: Path) -> None:
    if typer.launch(str(page)):
        raise MaintainerError(f"{page} was written, but no browser could be started")


def why(
    *,
    subject: Annotated[
        str,
        typer.Argument(
            help="A key, the digest of a layer, or at least the first six digits of it.",
            metavar="DIGEST|KEY",
        ),
    ],
    target: TargetOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Explain why an entry is kept or will be deleted, and what would free it."""
    from maintainer.cli.opening import find_cache, reading
    from maintainer.graph.explain import explain
    from maintainer.report.why import render_why

    with reading(config, database) as connection:
        cache = find_cache(connection, target)
        explanation = explain(connection, subject, target=cache)
    if json:
        print_json(explanation)
    else:
        print_layout(render_why(explanation), soft_wrap=True)


def tree(
    *,
    scope: Annotated[
        str | None, typer.Argument(help="A scope, tag or name. [default: all]", metavar="SCOPE")
    ] = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Draw the layers of a scope with their sizes, as its newest index references them."""
    from maintainer.cli.opening import find_cache, reading
    from maintainer.graph.forest import load_forest
    from maintainer.report.tree import render_forest

    with reading(config, database) as connection:
        forest = load_forest(connection, scope, target=find_cache(connection, target))
    if json:
        print_json(forest)
    else:
        print_layout(render_forest(forest))


def diff(
    *,
    one: Annotated[int | None, typer.Argument(help="The number of a run.", metavar="RUN")] = None,
    other: Annotated[
        int | None, typer.Argument(help="The number of another.", metavar="RUN")
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="The last two runs that have a report, on one cache.")
    ] = False,
    target: TargetOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Show what changed between two runs."""
    from maintainer.cli.opening import find_cache, reading
    from maintainer.graph.compare import compare, find_last_two
    from maintainer.report.diff import render_diff

    if last == (one is not None) or (one is None) != (other is None):
        raise UsageError("name two runs, or use --last: `maintainer runs` lists them")
    if target is not None and not last:
        raise UsageError("--target needs --last")
    with reading(config, database) as connection:
        if one is None or other is None:
            one, other = find_last_two(connection, find_cache(connection, target))
        found = compare(connection, one, other)
    if json:
        print_json(found)
    else:
        print_layout(render_diff(found))


def runs(
    *,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, metavar="NUMBER")] = 20,
    target: TargetOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """List the last runs, newest first."""
    from maintainer.cli.opening import find_cache, reading
    from maintainer.graph.reports import list_runs

    with reading(config, database) as connection:
        found = list_runs(connection, limit, target=find_cache(connection, target))
    if json:
        print_json(found)
    else:
        from maintainer.report.terminal import render_runs

        print_layout(render_runs(found))
