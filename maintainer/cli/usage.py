"""`maintainer usage`: where the space goes, with nothing but a token."""

from typing import TYPE_CHECKING, Annotated

import typer

from maintainer.cli.options import ConfigOption, JsonOption, VerboseOption, read_settings
from maintainer.cli.output import print_json, print_layout

if TYPE_CHECKING:
    from maintainer.report.usage import Usage
    from maintainer.settings import Settings


def usage(
    *,
    repository: Annotated[
        str | None,
        typer.Option(
            "--repository",
            "-R",
            help="Another repository than GITHUB_REPOSITORY.",
            metavar="OWNER/NAME",
        ),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show where the space of an Actions cache goes, and which policy would free how much. It only
    lists entries: it reads no index, changes nothing, and needs no database.
    """
    import anyio

    from maintainer.console import set_up_logging

    # Retries are logged, so that it is not silent while a service asks to wait.
    set_up_logging(verbose=verbose, quiet=False)
    found = anyio.run(_measure, read_settings(config, None), repository)
    if json:
        print_json(found)
    else:
        from maintainer.report.usage_table import render_usage

        print_layout(render_usage(found))


async def _measure(settings: "Settings", repository: str | None) -> "Usage":
    import anyio

    from maintainer.budget import Budget
    from maintainer.clock import now_utc
    from maintainer.errors import UsageError
    from maintainer.model.memory import Memory
    from maintainer.progress import Unwatched
    from maintainer.report.usage import measure
    from maintainer.settings import target_of
    from maintainer.stores.base import RunContext
    from maintainer.stores.kinds import connect

    room = settings.room.model_copy(update={"closed_refs": True})
    settings = settings.model_copy(update={"room": room})
    target = None if repository is None else target_of(repository)
    async with connect(settings, target).open(hasty=True) as store:
        if not store.abilities.lists:
            raise UsageError("this cache cannot be listed: set GITHUB_TOKEN and GITHUB_REPOSITORY")
        budget, now = Budget(store.requests, settings, now_utc), now_utc()
        context = RunContext(settings, budget, Unwatched(), now_utc, anyio.sleep)
        entries = (await store.entries(now, context)).entries
        # What counts as known is not read.
        known = Memory(read_entries=dict.fromkeys(entry.id for entry in entries))
        versions = await store.versions(known, now, context)
        limits = await store.limits(now, context)
        return measure(store.name, entries, versions.facts, limits, now)
