"""`maintainer db`: the schema of the database."""

import typer

from maintainer.cli.help import Command, Group
from maintainer.cli.options import ConfigOption, DatabaseOption, find_database

db = typer.Typer(
    cls=Group, help="Maintain the database.", no_args_is_help=True, rich_markup_mode=None
)


@db.command(cls=Command)
def upgrade(*, config: ConfigOption = None, database: DatabaseOption = None) -> None:
    """Upgrade the schema to this version; every run does so when it starts."""
    from maintainer.cli.opening import open_database

    with open_database(find_database(config, database)) as opened:
        typer.echo(f"{opened.name} is at revision {opened.revision()}")


@db.command(cls=Command)
def current(*, config: ConfigOption = None, database: DatabaseOption = None) -> None:
    """Print the revision of the schema."""
    from maintainer.graph.database import Database

    opened = Database(find_database(config, database))
    try:
        revision = opened.revision() or "none: there is no database yet"
    finally:
        opened.close()
    typer.echo(f"{opened.name} is at revision {revision}")
