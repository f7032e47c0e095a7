"""`maintainer simulate`: what would a cache of another size keep?"""

from typing import Annotated, Literal

import typer

from maintainer.cli.options import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    read_settings,
    read_sizes,
)
from maintainer.cli.output import print_json, print_layout


def simulate(
    *,
    quota: Annotated[
        str | None,
        typer.Option(
            help="Sizes such as 5GB,10GB,20GB. [default: 10, 25, 50 and 100 % of what was written]",
            metavar="SIZES",
        ),
    ] = None,
    policy: Annotated[
        Literal["github", "daily", "room"] | None,
        typer.Option(
            help="Only one: GitHub's own order, `keep_free` once a day, or after each build. "
            "[default: all]"
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="A cache, as `maintainer runs` names it, or a target of the service. "
            "[default: that of the last run]",
            metavar="TARGET",
        ),
    ] = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Show what builds would have found in a cache of another size, by the database's history."""
    from maintainer.cli.opening import find_cache, reading
    from maintainer.graph.history import load_history
    from maintainer.graph.reports import load_report
    from maintainer.report.simulation import DEFAULT_KEEP_FREE, simulate_cache

    keep_free = read_settings(config, database).room.keep_free or DEFAULT_KEEP_FREE
    quotas = [] if quota is None else read_sizes("--quota", quota)
    with reading(config, database) as connection:
        report = load_report(connection, target=find_cache(connection, target))
        history = load_history(connection, report.target)
    found = simulate_cache(report, history, quotas=quotas, policy=policy, keep_free=keep_free)
    if json:
        print_json(found)
    else:
        from maintainer.report.simulation_table import render_simulation

        print_layout(render_simulation(found))
