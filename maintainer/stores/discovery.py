"""The seam for discovery: a kind of store may find caches of its kind."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from maintainer.model.discovery import FoundCache
from maintainer.settings import DiscoverSettings, TargetSettings

WILDCARD = re.compile(r"[*?\[]")
"""What makes a text a pattern."""


@dataclass(frozen=True, slots=True)
class Discoverer:
    """How caches of one kind are found."""

    source: Callable[[DiscoverSettings], tuple[str, ...]]
    """Returns what identifies the place that a table searches: what was found there is forgotten
    with another place. Raises UsageError if the table is not valid. It may contain secrets.
    """
    search: Callable[[DiscoverSettings], AsyncIterator[FoundCache]]
    """Yields all caches of the place. Raises StoreError or UsageError if they may not be all."""


def make_target(table: DiscoverSettings, name: str, found: FoundCache) -> TargetSettings:
    """Return the target for a cache, with the settings of the table that has found it.

    Raises ValueError if the texts are not valid.
    """
    own = {key: getattr(table, key) for key in table.model_fields_set & _SHARED}
    place = {"repository": found.repository} if found.repository else {}
    return TargetSettings(**own | place | {"name": name, "store": found.store})


_SHARED = (DiscoverSettings.model_fields.keys() & TargetSettings.model_fields.keys()) - {
    "name",
    "store",
}
