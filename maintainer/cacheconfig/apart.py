"""Sets the records of a merge apart, so that it hides nothing of what else a builder imports.

BuildKit (master of August 2026) computes the ID of a record from its digest and the IDs of those
that it links to. Of several caches that a builder imports, those that hold the same record have the
same ID for it, and the builder keeps the record of the cache that answers first. If one of its
inputs has a key of its own beside that of its content, as what COPY copies has, the other caches
cannot tell which record it is: all that builds on it, and that only they have, is never found.
Where the IDs differ, the builder keeps both records, and finds in each cache what builds on its
own.

So in a merge each record that builds on nothing but records without inputs has one link more, to
the mark: a record that no build step has. Whatever builds on it then has another ID as well.
The selector of that link comes from the record, because records with the same link are united.
The digest of the mark is none, so this BuildKit leaves it out of what it exports; some that are
older do not. Records without inputs, and those of two merges, may have the same ID as before.

Source: `computeID` in `cache/remotecache/v1/chains.go`, `Query` in `solver/combinedcache.go`,
`getIDFromDeps` in `solver/cachemanager.go`, and `addBacklinks` in `solver/exporter.go` of
moby/buildkit.
"""

import hashlib
from collections.abc import Collection, Sequence

from maintainer.cacheconfig.model import CacheConfig, Link, Record
from maintainer.cacheconfig.order import leave_out

MARK = "maintainer:merge"
"""The digest of the mark. It has the form of one, and an algorithm that nobody knows."""

_MARK = Record(MARK, (), ())


def set_apart(config: CacheConfig) -> CacheConfig:
    """Return `config` with the mark as its last record, if anything is to be set apart.

    Not beside a record with the digest of the mark, which only strangers write: importers would
    unite the two, and could unite what links to them.
    """
    records, mark = config.records, len(config.records)
    if any(record.digest == MARK for record in records):
        return config
    marked = [_linked_to(record, mark, records) for record in records]
    if marked == list(records):
        return config
    return CacheConfig(config.layers, (*marked, _MARK))


def _linked_to(record: Record, mark: int, records: Sequence[Record]) -> Record:
    """Return a record with a link to the mark, if it builds on nothing but what has no inputs."""
    sources = [records[link.source] for links in record.inputs for link in links]
    if not sources or any(one.inputs for one in sources):
        return record
    first, *others = record.inputs
    link = Link(mark, _selector(record, records))
    return Record(record.digest, record.results, ((*first, link), *others))


def _selector(record: Record, records: Sequence[Record]) -> str:
    """Return what no other record has: one with the same links is the same record."""
    links = [
        sorted([records[link.source].digest, link.selector] for link in links)
        for links in record.inputs
    ]
    return hashlib.sha256(repr([record.digest, links]).encode()).hexdigest()[:32]


def without_mark(config: CacheConfig) -> CacheConfig:
    """Return `config` without the mark, and without the links to it.

    We write no input that has nothing else. In what others have written it stays as it is.
    """
    marks = {at for at, record in enumerate(config.records) if record == _MARK}
    if not marks:
        return config
    records = [_not_linked_to(record, marks) for record in config.records]
    marks -= {link.source for one in records for links in one.inputs for link in links}
    return CacheConfig(config.layers, leave_out(records, marks))


def _not_linked_to(record: Record, marks: Collection[int]) -> Record:
    inputs = tuple(
        tuple(link for link in links if link.source not in marks) or links
        for links in record.inputs
    )
    return Record(record.digest, record.results, inputs)
