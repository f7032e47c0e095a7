"""`maintainer targets`: what the service would maintain."""

from typing import TYPE_CHECKING, Annotated

import typer

from maintainer.cli.options import ConfigOption, JsonOption, read_settings, verbose_option
from maintainer.cli.output import print_json, print_layout

if TYPE_CHECKING:
    from maintainer.serve.listing import TargetList
    from maintainer.settings import Settings


def targets(
    *,
    config: ConfigOption = None,
    json: JsonOption = False,
    verbose: Annotated[bool, verbose_option("Also print what is ignored")] = False,
) -> None:
    """Show the targets that are configured, and those that are found by [[discover]]. It searches
    now, changes nothing, and needs no database.
    """
    import anyio

    from maintainer.console import set_up_logging

    set_up_logging(verbose=verbose, quiet=False)
    found = anyio.run(_list, read_settings(config, None))
    if json:
        print_json(found)
    else:
        from maintainer.serve.table import render_targets

        print_layout(render_targets(found, show_ignored=verbose))
    if found.problems:
        raise typer.Exit(1)


async def _list(settings: "Settings") -> "TargetList":
    from maintainer.serve.listing import list_targets

    return await list_targets(settings)
