"""The sink record: one more record, so that an importer finds everything that a merged index holds.

BuildKit's importer (since v0.25) walks an index from each *leaf*, a record that no other record
links to. What an earlier walk has stored is returned to a later one once only, and the links that
ask for it again are left out of the look-up table. An export of one build has one leaf and loses
nothing; a merge has many leaves, and loses different links at each import. The sink has all leaves
as the alternatives of its one input, so that it is the only leaf.

Source: `addItemToStorage` in `cache/remotecache/v1/cachestorage.go` of moby/buildkit.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from maintainer.cacheconfig.apart import ANY_STAMP, set_apart, without_stamps
from maintainer.cacheconfig.model import CacheConfig, Link, Record
from maintainer.cacheconfig.order import leave_out


def _digest(sentence: bytes) -> str:
    return f"sha256:{hashlib.sha256(sentence).hexdigest()}"


class Sink(StrEnum):
    """The digest of a sink, which says what we wrote: that of a sentence, as no build step has."""

    REWRITE = _digest(b"maintainer: this record leads to every leaf")
    """An index that builds export to, rewritten in place."""
    MERGE = _digest(b"maintainer: this record leads to every leaf of a merge")
    """The merge of all indexes of a ref or directory, in an index that no build exports to."""


_SINKS = frozenset(Sink)


def leaves(records: Sequence[Record]) -> list[int]:
    """Return the positions of the records that no record links to, in order."""
    linked = {link.source for record in records for links in record.inputs for link in links}
    return [position for position in range(len(records)) if position not in linked]


def loses_links(config: CacheConfig, sink: Sink | None) -> bool:
    """Return whether importers leave links of an index out, because it has several leaves.

    The index has no twins, which importers unite: `merge` has left none.
    """
    return sink is None and len(leaves(config.records)) > 1


def with_sink(
    config: CacheConfig, sink: Sink = Sink.REWRITE, stamp: str = ANY_STAMP
) -> CacheConfig:
    """Return `config` set apart by a stamp, with a sink as its last record.

    An index without records stays as it is.
    """
    if not config.records:
        return config
    ways = tuple(Link(leaf, "") for leaf in leaves(config.records))
    records = set_apart(config, stamp).records
    return CacheConfig(config.layers, (*records, Record(sink.value, (), (ways,))))


def without_sink(config: CacheConfig) -> tuple[CacheConfig, Sink | None]:
    """Return `config` without its sink and its stamp, and which sink it had.

    A record that has the digest of the sink and another shape is an ordinary record.
    """
    position = _find_sink(config.records)
    if position is None:
        return without_stamps(config), None
    rest = CacheConfig(config.layers, leave_out(config.records, {position}))
    return without_stamps(rest), Sink(config.records[position].digest)


def _find_sink(records: Sequence[Record]) -> int | None:
    if not any(record.digest in _SINKS for record in records):
        return None
    last = leaves(records)
    if len(last) != 1 or records[last[0]].digest not in _SINKS:
        return None
    sink = records[last[0]]
    if sink.results or len(sink.inputs) != 1 or any(link.selector for link in sink.inputs[0]):
        return None
    others = {
        link.source
        for record in records
        if record is not sink
        for links in record.inputs
        for link in links
    }
    # Without the sink, exactly those that it links to are leaves.
    return None if any(link.source in others for link in sink.inputs[0]) else last[0]
