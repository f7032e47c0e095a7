"""`maintainer forget`: drop a scope that builds write no longer."""

from typing import Annotated

import typer

from maintainer.cli.options import ConfigOption, DatabaseOption, JsonOption, find_database
from maintainer.cli.output import print_json


def forget(
    *,
    scope: Annotated[
        str, typer.Argument(help="The scope, or the tag or name elsewhere.", metavar="SCOPE")
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="The cache, as `maintainer runs` names it, or a target of the service. "
            "[default: the only one with the scope]",
            metavar="TARGET",
        ),
    ] = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would be dropped, and stop.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Forget a scope that is no longer built: the next run drops its results, and then its blobs.

    This changes only the database. `maintainer gc --dry-run` shows what the next run does.
    """
    from maintainer.cli.opening import changing, find_cache
    from maintainer.clock import now_utc
    from maintainer.graph.forget import forget as forget_scope
    from maintainer.report.forgotten import format_forgotten

    with changing(find_database(config, database)) as connection:
        cache = find_cache(connection, target)
        found = forget_scope(connection, scope, now_utc(), dry_run=dry_run, target=cache)
    if json:
        print_json(found)
    else:
        for line in format_forgotten(found, dry_run=dry_run):
            typer.echo(line)
