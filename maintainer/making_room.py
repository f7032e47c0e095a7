"""With `keep_free` set, a run makes room last: if what all other policies leave would still take
more than the quota less what must stay free, whole results leave. The indexes are written without
them first. Their blobs are unreferenced from then on, and are deleted after the grace period, like
all others. A result that a build exports again is there again. Pure.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from maintainer.cacheconfig import CacheConfig, Digest, IndexId
from maintainer.cacheconfig.shrink import ResultId, results_of
from maintainer.model.marks import Marks
from maintainer.model.room import Inventory, Room
from maintainer.model.stock import Needs, Stock
from maintainer.policy.protected import protect
from maintainer.policy.room import make_room


def choose(marks: Marks, stock: Stock, needs: Needs, limit: int, grace: timedelta) -> Room:
    """Return what leaves; nothing if there is room enough."""
    now = marks.snapshot.now
    indexes = {index.id: index.needs for index in marks.indexes if index.needs.records}
    needed = frozenset[Digest]().union(*(config.blobs for config in indexes.values()))
    sizes = {blob: stock.sizes.get(blob, 0) for blob in needed}
    others = stock.stored - stock.leaving - sum(sizes.values())
    inventory = Inventory.of(indexes, _needed_at(indexes, stock, needs), sizes)
    protected = protect(marks, inventory, stock, needs, grace)
    return make_room(inventory, limit, now, protected=protected, others=others)


def _needed_at(
    indexes: Mapping[IndexId, CacheConfig], stock: Stock, needs: Needs
) -> Mapping[ResultId, datetime]:
    """Return when a build last needed each result: when it exported, or looked up, its layers."""
    times = dict(needs.needed_at)
    for blob, at in stock.used_at.items():
        times[blob] = max(at, times.get(blob, at))
    found: dict[ResultId, datetime] = {}
    for config in indexes.values():
        for name, _, _, _ in results_of(config):
            known = [times[blob] for blob in name.blobs if blob in times]
            if known:
                found[name] = min(known)
    return found
