"""The fingerprint of what a run depends on: the list of entries, the settings, and the version.

Runs that have the same one would decide the same, but for what falls due in between. Pure.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from maintainer import __version__
from maintainer.model.decision import Keep
from maintainer.model.entry import Access, Listing, StoreLimits, in_batches
from maintainer.model.store import Abilities

_BATCH = 5_000


def fingerprint(
    listing: Listing,
    *,
    access: Access,
    abilities: Abilities,
    limits: StoreLimits,
    ignored: Sequence[Keep],
    settings: str,
    mode: tuple[bool, ...],
) -> bytes | None:
    """Return the fingerprint; None if the list does not show all that a run depends on."""
    if listing.state is None or not listing.complete:
        return None
    digest = hashlib.sha256()
    context = (
        __version__,
        settings,
        mode,
        listing.state,
        sorted(access.readable),
        sorted(access.writable),
        abilities,
        limits,
        [(one.subject, one.ref, one.reason) for one in ignored],
    )
    digest.update(msgspec.msgpack.encode(context))
    for some in in_batches(listing.entries, _BATCH):
        digest.update(msgspec.msgpack.encode(some))
    return digest.digest()
