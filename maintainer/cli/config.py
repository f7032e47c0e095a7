"""`maintainer config`: the settings that a run would use."""

from typing import Annotated

import typer

from maintainer.cli.help import Command, Group
from maintainer.cli.options import ConfigOption, DatabaseOption, JsonOption, read_settings
from maintainer.cli.output import print_json

config = typer.Typer(
    cls=Group, help="Show the settings.", no_args_is_help=True, rich_markup_mode=None
)


@config.command(cls=Command)
def show(
    *,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    store: Annotated[
        str | None, typer.Option(help="As for `maintainer gc`.", metavar="STORE")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the effective settings as a TOML file, and where each of them comes from."""
    from maintainer.setup.effective import find_effective, format_effective

    given = {"database": database, "store": store}
    overrides = {key: value for key, value in given.items() if value is not None}
    read_settings(config, database, store=store)
    found = find_effective(config, overrides)
    if json:
        print_json(found)
        return
    for line in format_effective(found):
        typer.echo(line)
