"""Sets the records of an index apart, so that it hides nothing of what else a builder imports.

BuildKit (since v0.25) computes the ID of a record from its digest and the IDs of those that it
links to. Of several caches that a builder imports, those that hold the same record have the same ID
for it, and the builder keeps the record of the cache that answers first. If one of its inputs has a
key of its own beside that of its content, as what COPY copies has, the other caches cannot tell
which record it is: all that builds on it, and that only they have, is never found. Where the IDs
differ, the builder keeps both records, and finds in each cache what builds on its own.

So in an index that we write each record that builds on nothing but records without inputs has one
link more, to the mark of the index: a record that no build step has. Whatever builds on it then has
another ID as well. The selector of that link comes from the record, because records with the same
link are united. Records without inputs have the same ID as before. So have those of indexes with
the same ref and scope, or name, in two caches.

The digest of a mark is none, so exporters since v0.25 leave it out. Those that are older export the
marks of what they import. Older importers do not need them: they give each record an ID by chance.

Source: `computeID` in `cache/remotecache/v1/chains.go`, `Query` in `solver/combinedcache.go`,
`getIDFromDeps` in `solver/cachemanager.go`, and `addBacklinks` in `solver/exporter.go` of
moby/buildkit.
"""

import hashlib
from collections.abc import Collection, Sequence

from maintainer.cacheconfig.keys import IndexId
from maintainer.cacheconfig.model import CacheConfig, Link, Record
from maintainer.cacheconfig.order import leave_out

_ALGORITHM = "maintainer:"
"""With it, a mark has the form of a digest, of an algorithm that nobody knows."""
_DIGITS = 16
ANY_MARK = _ALGORITHM + "0" * _DIGITS
"""A mark of no index, as long as all others: for sizes, and for the content that is recorded."""


def mark_of(index: IndexId) -> str:
    """Return the mark of an index: the same one each time that it is written.

    Otherwise old exporters would export more and more of them.
    """
    name = hashlib.sha256(repr((index.ref, index.scope)).encode()).hexdigest()
    return _ALGORITHM + name[:_DIGITS]


def set_apart(config: CacheConfig, mark: str) -> CacheConfig:
    """Return `config` with a mark as its last record, if anything is to be set apart.

    Not beside a record with the digest of a mark, which only strangers write: importers would
    unite the two, and could unite what links to them.
    """
    records, position = config.records, len(config.records)
    if any(record.digest.startswith(_ALGORITHM) for record in records):
        return config
    marked = [_linked_to(record, position, records) for record in records]
    if marked == list(records):
        return config
    return CacheConfig(config.layers, (*marked, Record(mark, (), ())))


def _linked_to(record: Record, mark: int, records: Sequence[Record]) -> Record:
    """Return a record with a link to a mark, if it builds on nothing but what has no inputs."""
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


def without_marks(config: CacheConfig) -> CacheConfig:
    """Return `config` without marks of any index, and without the links to them.

    We write no input that has nothing else. In what others have written it stays as it is.
    """
    marks = {at for at, record in enumerate(config.records) if _is_mark(record)}
    if not marks:
        return config
    records = [_not_linked_to(record, marks) for record in config.records]
    marks -= {link.source for one in records for links in one.inputs for link in links}
    return CacheConfig(config.layers, leave_out(records, marks))


def _is_mark(record: Record) -> bool:
    return record.digest.startswith(_ALGORITHM) and not (record.results or record.inputs)


def _not_linked_to(record: Record, marks: Collection[int]) -> Record:
    inputs = tuple(
        tuple(link for link in links if link.source not in marks) or links
        for links in record.inputs
    )
    return Record(record.digest, record.results, inputs)
