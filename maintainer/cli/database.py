"""`maintainer db`: the schema of the database."""

from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import typer

from maintainer.cli.help import Command, Group
from maintainer.cli.options import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    find_database,
    read_database,
)

db = typer.Typer(
    cls=Group, help="Maintain the database.", no_args_is_help=True, rich_markup_mode=None
)


@db.command(cls=Command)
def upgrade(*, config: ConfigOption = None, database: DatabaseOption = None) -> None:
    """Upgrade the schema to this version; every run does so when it starts."""
    from maintainer.graph.database import open_database

    with open_database(find_database(config, database)) as opened:
        typer.echo(f"{opened.name} is at revision {opened.revision()}")


@dataclass(frozen=True)
class Schema:
    """The schema of a database; no revision if there is no database yet."""

    database: str
    revision: str | None


@db.command(cls=Command)
def current(
    *, config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """Print the revision of the schema."""
    from maintainer.cli.output import print_json
    from maintainer.graph.database import Database

    with closing(Database(find_database(config, database))) as opened:
        schema = Schema(opened.name, opened.revision())
    if json:
        print_json(schema)
        return
    revision = schema.revision or "none: there is no database yet"
    typer.echo(f"{schema.database} is at revision {revision}")


@db.command(cls=Command)
def copy(
    source: Annotated[
        str, typer.Argument(help="The database that has the history.", metavar="FROM")
    ],
    target: Annotated[str, typer.Argument(help="A new or an empty database.", metavar="TO")],
    *,
    json: JsonOption = False,
) -> None:
    """Copy the history to another database: from a file to a server, or back.

    Both are given as a file or as the URL of a PostgreSQL database. All is copied or nothing, and
    compared afterwards. Then let every run use the new database.
    """
    from maintainer.cli.opening import open_existing
    from maintainer.cli.output import print_json
    from maintainer.graph.copying import copy_history
    from maintainer.graph.database import open_database

    urls = read_database("FROM", source), read_database("TO", target)
    with open_existing(urls[0], "gc") as known, open_database(urls[1]) as new:
        copied = copy_history(known, new)
    if json:
        print_json(copied)
        return
    for one in copied:
        typer.echo(f"{one.rows:>9} {one.table}")
    typer.echo(f"{new.name} holds all that {known.name} holds: counts and digests are the same")
