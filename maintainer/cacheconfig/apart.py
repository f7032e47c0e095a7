"""Sets the records of an index apart, so that it hides nothing of what else a builder imports.

BuildKit (since v0.25) computes the ID of a record from its digest and the IDs of those that it
links to. Of several caches that a builder imports, those that hold the same record have the same ID
for it, and the builder keeps the record of the cache that answers first. If one of its inputs has a
key of its own beside that of its content, as what COPY copies has, the other caches cannot tell
which record it is: all that builds on it, and that only they have, is never found. Where the IDs
differ, the builder keeps both records, and finds in each cache what builds on its own.

So in an index that we write each record that builds on nothing but records without inputs has one
link more, to the stamp of the index: a record that no build step has. Whatever builds on it has
another ID then, too. The selector of that link comes from the record, because records with the same
link are united. Records without inputs have the same ID as before. Two caches that runs call by the
same name share their stamps, and so does a copy with its original, until a run writes it.

The digest of a stamp is none, so exporters since v0.25 leave it out. Older ones export the stamps
of what they import. Older importers do not need them: they give each record an ID by chance.

Source: `computeID` in `cache/remotecache/v1/chains.go`, `Query` in `solver/combinedcache.go`,
`getIDFromDeps` in `solver/cachemanager.go`, and `addBacklinks` in `solver/exporter.go` of
moby/buildkit.
"""

import hashlib
from collections.abc import Collection, Sequence

from maintainer.cacheconfig.keys import IndexId
from maintainer.cacheconfig.model import CacheConfig, Link, Record
from maintainer.cacheconfig.order import dependency_order, leave_out, sources_of

_ALGORITHM = "maintainer:"
"""With it, a stamp has the form of a digest, of an algorithm that nobody knows."""
_DIGITS = 16
ANY_STAMP = _ALGORITHM + "0" * _DIGITS
"""A stamp of no index, as long as all others: for sizes, and for the content that is recorded."""


def stamp_of(index: IndexId, cache: str) -> str:
    """Return the stamp of an index: the same one for all runs that call its cache by this name.

    If it differed each time, old exporters would export more and more of them.
    """
    name = hashlib.sha256(repr((cache, index.ref, index.scope)).encode()).hexdigest()
    return _ALGORITHM + name[:_DIGITS]


def set_apart(config: CacheConfig, stamp: str) -> CacheConfig:
    """Return `config` with a stamp as its last record, if anything is to be set apart.

    It has none yet: whoever reads an index removes all.
    """
    records = config.records
    stamped = [_linked_to(record, len(records), records) for record in records]
    if stamped == list(records):
        return config
    return CacheConfig(config.layers, (*stamped, Record(stamp, (), ())))


def _linked_to(record: Record, stamp: int, records: Sequence[Record]) -> Record:
    """Return a record with a link to a stamp, if it builds on nothing but what has no inputs."""
    sources = [records[link.source] for links in record.inputs for link in links]
    if not sources or any(one.inputs for one in sources):
        return record
    first, *others = record.inputs
    link = Link(stamp, _selector(record, records))
    return Record(record.digest, record.results, ((*first, link), *others))


def _selector(record: Record, records: Sequence[Record]) -> str:
    """Return what no other record has: one with the same links is the same record."""
    links = [
        sorted([records[link.source].digest, link.selector] for link in links)
        for links in record.inputs
    ]
    return hashlib.sha256(repr([record.digest, links]).encode()).hexdigest()[:32]


def without_stamps(config: CacheConfig) -> CacheConfig:
    """Return `config` without stamps of any index, and without the links to them.

    Strangers may have written stamps with results or inputs, or steps that build on nothing else.
    No build step has such a digest, so no builder ever finds these: they go, too.
    """
    records = config.records
    if not any(map(_is_stamp, records)):
        return config
    gone = _behind_stamps(records)
    left = [_not_linked_to(record, gone) for record in records]
    return CacheConfig(config.layers, leave_out(left, gone))


def _is_stamp(record: Record) -> bool:
    return record.digest.startswith(_ALGORITHM)


def _behind_stamps(records: Sequence[Record]) -> set[int]:
    """Return the positions of stamps, and of what has an input that nothing else leads to."""
    gone: set[int] = set()
    for at in dependency_order(sources_of(records)) or ():
        record = records[at]
        lost = (all(link.source in gone for link in links) for links in record.inputs)
        if _is_stamp(record) or any(lost):
            gone.add(at)
    return gone


def _not_linked_to(record: Record, gone: Collection[int]) -> Record:
    inputs = tuple(
        tuple(link for link in links if link.source not in gone) for links in record.inputs
    )
    return Record(record.digest, record.results, inputs)
