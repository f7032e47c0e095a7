"""The kinds of stores. A new one is added by one line of `KINDS`."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from maintainer.errors import SettingError, UsageError
from maintainer.sanitize import printable
from maintainer.settings import DiscoverSettings, Settings, TargetSettings, is_folder
from maintainer.stores.azblob.kind import AZBLOB
from maintainer.stores.discovery import Discoverer
from maintainer.stores.github.kind import GITHUB
from maintainer.stores.kind import Connection, StoreKind
from maintainer.stores.local.kind import LOCAL
from maintainer.stores.registry.kind import REGISTRY
from maintainer.stores.s3.kind import S3

log = logging.getLogger(__name__)

_SHARED = Settings.model_fields.keys() & TargetSettings.model_fields.keys()
"""What a target may set for itself."""
_OVERRIDES = frozenset({"grace", "scopes", "merged_scope", "merged_tag", "verify"})
"""What both the command line and a target may set."""
KINDS: tuple[StoreKind, ...] = (GITHUB, LOCAL, S3, AZBLOB, REGISTRY)


def connect(settings: Settings, target: TargetSettings | None = None) -> Connection:
    """Return the location of the configured cache.

    Raises UsageError if the settings are not valid.
    """
    if settings.verify:
        refuse_unused(settings.store, ["verify"])
    return kind_of(settings.store).connect(settings, target)


def check(settings: Settings) -> None:
    """Raise UsageError if the settings name a store that cannot exist."""
    blobs_of(settings.store)
    seen: dict[tuple[str, ...], str] = {}
    indexes: dict[tuple[str, ...], str] = {}
    for target in settings.targets:
        key = f"[[targets]] {target.name}"
        kind = kind_of(target.store, f"store in {key}")
        if kind.uses_repository and target.repository is None:
            raise UsageError(f"setting {key}: repository or store must be set")
        if target.repository is not None and not kind.uses_repository:
            raise UsageError(f"setting {key}: repository and store exclude each other")
        refuse_unused(target.store, target.model_fields_set, f" in {key}")
        if (blobs := blobs_of(target.store, f"store in {key}")) is None:
            continue
        if blobs in seen:
            raise UsageError(
                f"setting {key}: its blobs are those of {seen[blobs]}: make one target of both"
            )
        seen[blobs] = f"target {target.name}"
        places = indexes_of(target.store)
        check_apart(key, places, indexes)
        indexes |= dict.fromkeys(places, seen[blobs])
    for table in settings.discover:
        discoverer_of(table).source(table)


def refuse_unused(store: str, given: Iterable[str], where: str = "") -> None:
    """Raise SettingError if one of some settings, given for one cache, has no effect there."""
    kind = kind_of(store)
    for key in sorted(frozenset(given) - kind.uses):
        if names := [one.name for one in KINDS if key in one.uses]:
            problem = f"is for {_any_of(names)}, and has no effect on {kind.name}: leave it out"
            raise SettingError(f"{key}{where}", problem)


def discoverer_of(table: DiscoverSettings) -> Discoverer:
    """Return what searches the place of a table. Raises UsageError if nothing does."""
    key = f"store in [[discover]] {table.name}"
    kind = kind_of(table.store, key)
    if kind.discoverer is None:
        forms = ", ".join(one.name for one in KINDS if one.discoverer)
        raise SettingError(key, f"caches of the kind {kind.name} cannot be found: use {forms}")
    if table.organization is not None and not kind.uses_repository:
        raise SettingError(key, "organization and store exclude each other")
    refuse_unused(table.store, table.model_fields_set, f" in [[discover]] {table.name}")
    return kind.discoverer


def indexes_of(store: str) -> Sequence[tuple[str, ...]]:
    """Return where the indexes of a place are, if another cache could be below."""
    find = kind_of(store).indexes_of
    return find(store) if find else ()


def check_apart(
    key: str, places: Sequence[tuple[str, ...]], others: Mapping[tuple[str, ...], str]
) -> None:
    """Raise UsageError if indexes are among those of another target, which has other blobs."""
    for place in places:
        for other, name in others.items():
            if _leads_into(place, other) or _leads_into(other, place):
                raise UsageError(
                    f"setting {key}: its indexes are among those of {name}, or the other way "
                    "round, and their blobs are not: choose prefixes that are apart"
                )


def _leads_into(place: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the keys of some indexes begin like those of others."""
    return place[:-1] == other[:-1] and other[-1].startswith(place[-1])


def for_target(settings: Settings, target: TargetSettings) -> Settings:
    """Return the common settings, overridden by those of a target."""
    given = {key: getattr(target, key) for key in _SHARED}
    return settings.model_copy(update={k: v for k, v in given.items() if v is not None})


def with_those_of_its_target(
    settings: Settings, found: Sequence[TargetSettings], given: Iterable[str]
) -> Settings:
    """Return the settings for the cache of `store`: with those of the target that it is, if any.

    `found` are the targets that no table configures. What is `given` for this run counts for more.
    """
    target = _find_target(settings, (*settings.targets, *found))
    if target is None:
        return settings
    log.info("the settings of target %s apply", target.name)
    rest = target.model_copy(update=dict.fromkeys(_OVERRIDES.intersection(given)))
    return for_target(settings, rest).model_copy(update={"store": settings.store})


def _find_target(settings: Settings, targets: Sequence[TargetSettings]) -> TargetSettings | None:
    place = _place(settings) if targets else ()
    for target in targets:
        # Others may need tokens that are not here.
        with suppress(UsageError):
            if _place(for_target(settings, target), target) == place:
                return target
    return None


def _place(settings: Settings, target: TargetSettings | None = None) -> tuple[str, ...]:
    return blobs_of(settings.store) or connect(settings, target).identity


def can_be_opened_early(settings: Settings) -> bool:
    """Whether settings that are not enough to open the cache are detected at once."""
    return kind_of(settings.store).can_be_opened_early


def blobs_of(store: str, key: str = "store") -> tuple[str, ...] | None:
    """Return where the blobs of a place are, if several caches could share them."""
    find = kind_of(store, key).blobs_of
    return find(store) if find else None


def kind_of(store: str, key: str = "store") -> StoreKind:
    """Return the kind of a place. Raises UsageError, which names the setting."""
    name, colon, place = store.partition(":")
    for kind in KINDS:
        if kind.name == name and bool(colon and place) == kind.has_place:
            return kind
    if not store:
        raise SettingError(key, "is empty")
    forms = [f"{kind.form} ({kind.what})" for kind in KINDS]
    problem = _suggest(store) or f"must be {_any_of(forms)}"
    raise SettingError(key, problem)


def _any_of(forms: Sequence[str]) -> str:
    return ", or ".join(filter(None, (", ".join(forms[:-1]), forms[-1])))


def _suggest(place: str) -> str:
    """Return a question about something that is not a store, but nearly is one."""
    name, _, rest = place.partition(":")
    if rest and name.lower() != name and name.lower() in {kind.name for kind in KINDS}:
        return f"did you mean {printable(f'{name.lower()}:{rest}')}?"
    if place.startswith(("/", "./", "../", "~/")) or is_folder(Path(place)):
        return f"did you mean {printable(f'local:{place}')}?"
    return ""
