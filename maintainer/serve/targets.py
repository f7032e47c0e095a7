"""The configured targets: caches with their settings, tokens and rules."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import anyio

from maintainer.errors import UsageError
from maintainer.serve.clock import Rule
from maintainer.settings import Settings
from maintainer.stores.kind import Connection
from maintainer.stores.registry import can_be_opened_early, check, connect, for_target

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


def read_targets(settings: Settings) -> Mapping[str, ServedTarget]:
    """Return the configured targets, in order, by name.

    Raises UsageError if the settings are not enough to open a store. This sends no requests.
    """
    check(settings)
    targets = _read(settings)
    anyio.run(_try_to_open, targets.values())
    return targets


def _read(settings: Settings) -> dict[str, ServedTarget]:
    if not settings.targets:
        rule = Rule.of(settings.serve, None)
        return {OWN: ServedTarget(OWN, rule, settings, connect(settings))}
    targets = {}
    unset = []
    for target in settings.targets:
        rule = Rule.of(settings.serve, target)
        ours = for_target(settings, target)
        try:
            connection = connect(ours, target)
        except UsageError as error:
            unset.append(str(error))
            continue
        targets[target.name] = ServedTarget(target.name, rule, ours, connection)
    if unset:
        raise UsageError("; ".join(unset))
    return targets


async def _try_to_open(targets: Iterable[ServedTarget]) -> None:
    for target in targets:
        try:
            # A directory may still be created before the target is due.
            if can_be_opened_early(target.settings):
                async with target.connection.open():
                    pass
        except UsageError as error:
            raise UsageError(f"target {target.name}: {error}") from None
