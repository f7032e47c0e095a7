"""The targets, configured or found: caches with their settings, tokens and rules."""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio

from maintainer.errors import UsageError
from maintainer.graph.database import Database
from maintainer.serve.clock import Rule
from maintainer.serve.discovery import Found, load_recorded, select
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.kind import Connection
from maintainer.stores.kinds import can_be_opened_early, check, connect, for_target

log = logging.getLogger(__name__)

OWN = "default"
"""The name of the environment's own target, if no target is configured."""


@dataclass(frozen=True, slots=True)
class ServedTarget:
    """A cache that the service maintains."""

    name: str
    rule: Rule
    settings: Settings
    """The common settings, overridden by those of this target."""
    connection: Connection
    """Its location."""

    @property
    def cache(self) -> str:
        """An identifier of its cache. It is a digest, because a URL may contain a secret."""
        place = json.dumps(self.connection.identity)
        return hashlib.sha256(place.encode()).hexdigest()

    @property
    def host(self) -> str:
        """The host of its cache, of which several targets may be; empty for a directory."""
        urls = (part for part in self.connection.identity if "://" in part)
        return urlsplit(next(urls, self.settings.store)).netloc.lower()


def read_targets(settings: Settings) -> Mapping[str, ServedTarget]:
    """Return the configured targets, in order, by name.

    Raises UsageError if the settings are invalid, or not enough to open any store. This sends no
    requests.
    """
    check(settings)
    targets = _read(settings)
    anyio.run(_try_to_open, targets.values())
    return targets


def known_targets(database: Database, settings: Settings) -> Mapping[str, ServedTarget]:
    """Return the targets of checked settings, and those that were found, by the database."""
    return combine(settings, load_recorded(database, settings))


def combine(settings: Settings, found: Found) -> Mapping[str, ServedTarget]:
    """Return the targets of checked settings, and those that were found, without opening any."""
    return _read(settings) | _read_found(settings, found)


def _read(settings: Settings) -> dict[str, ServedTarget]:
    if not settings.targets and not settings.discover:
        rule = Rule.of(settings.serve, None)
        own = ServedTarget(OWN, rule, settings, connect(settings))
        return {OWN: own}
    return {target.name: _served(settings, target) for target in settings.targets}


def _read_found(settings: Settings, found: Found) -> dict[str, ServedTarget]:
    targets = {}
    for one in select(settings, found).targets:
        try:
            targets[one.settings.name] = _served(settings, one.settings)
        except UsageError as error:
            log.error("target %s: %s", one.settings.name, error)  # noqa: TRY400 - one line is enough
    return targets


def _served(settings: Settings, target: TargetSettings) -> ServedTarget:
    ours, rule = for_target(settings, target), Rule.of(settings.serve, target)
    return ServedTarget(target.name, rule, ours, connect(ours, target))


async def _try_to_open(targets: Collection[ServedTarget]) -> None:
    """Raise UsageError if no target can be opened; one of several fails alone, in each attempt."""
    problems = [problem for target in targets if (problem := await _find_problem(target))]
    if problems and len(problems) == len(targets):
        raise UsageError("; ".join(problems))
    for problem in problems:
        log.error("%s", problem)


async def _find_problem(target: ServedTarget) -> str:
    """Return why a target cannot be opened with these settings; empty if nobody knows yet."""
    # A directory may still be created before the target is due.
    if not can_be_opened_early(target.settings):
        return ""
    try:
        async with target.connection.open():
            return ""
    except UsageError as error:
        return f"target {target.name}: {str(error).removeprefix(f'target {target.name}: ')}"
