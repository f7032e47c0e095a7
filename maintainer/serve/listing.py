"""The targets of a configuration, and those that are found now."""

import msgspec

from maintainer.serve.discovery import IgnoredCache, search, select
from maintainer.serve.targets import combine
from maintainer.settings import Settings


class ListedTarget(msgspec.Struct, frozen=True):
    """A target. Its JSON names are stable."""

    name: str
    cache: str
    rule: str
    discovery: str | None
    """What has found it; None if it is configured."""


class SearchProblem(msgspec.Struct, frozen=True):
    """Why a search may not have found everything."""

    discovery: str
    problem: str


class TargetList(msgspec.Struct, frozen=True):
    """All targets."""

    targets: tuple[ListedTarget, ...]
    ignored: tuple[IgnoredCache, ...]
    problems: tuple[SearchProblem, ...]


async def list_targets(settings: Settings) -> TargetList:
    """Search now, and return the targets. Raises UsageError if the settings are invalid."""
    searches = [await search(table) for table in settings.discover]
    found = {one.name: one.found for one in searches}
    selection = select(settings, found)
    places = {one.name: one.repository or one.store for one in settings.targets}
    places |= {one.settings.name: one.place for one in selection.targets}
    discoveries = {one.settings.name: one.discovery for one in selection.targets}
    served = combine(settings, found)
    return TargetList(
        tuple(
            ListedTarget(
                name, places.get(name, settings.store), str(one.rule), discoveries.get(name)
            )
            for name, one in served.items()
        ),
        tuple(selection.ignored),
        tuple(SearchProblem(one.name, one.problem) for one in searches if one.problem),
    )
