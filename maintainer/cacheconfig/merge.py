"""Merging: several indexes into one, with everything that any of them leads to."""

from collections import Counter
from collections.abc import Container, Iterable, Sequence

from maintainer.cacheconfig.keys import Digest
from maintainer.cacheconfig.loops import leave_out_loops
from maintainer.cacheconfig.model import CacheConfig, Layer, Link, Record, Result
from maintainer.cacheconfig.normal import normalize
from maintainer.cacheconfig.order import dependency_order, number_layers, sources_of
from maintainer.cacheconfig.timestamps import Nanoseconds

_Edge = tuple[int, str]
"""A source record and a selector."""
_Inputs = tuple[tuple[_Edge, ...], ...]
"""The links of each input of a record."""
_Use = tuple[str, int, int, str]
"""How a record is used: by what digest, with how many inputs, at which one, by what selector."""
_Chain = tuple[tuple[int, ...], bool]
"""The layers of a result, and whether they bring their parents."""


def merge(configs: Iterable[CacheConfig]) -> CacheConfig:
    """Unite indexes, in normal form. The order does not matter, nor does merging something twice.

    Records without inputs are the same when their digests are equal. Records with inputs are the
    same when their digests are equal and, for every input, they share a link; then their links and
    results are united, which can make the records that build on them the same, and so on upwards
    until no two are. (An importer unites what it reads in the same way.) Layers are the same when
    their blobs and all the blobs below are. A link that would close a loop is left out.

    Nearly linear in the records and links, for what builds write.
    """
    # The union is gone before the normal form is made: it takes more memory than all else.
    return normalize(_unite(configs))


def _unite(configs: Iterable[CacheConfig]) -> CacheConfig:
    union = _Union()
    for config in configs:
        union.add(config)
    union.finish()
    return union.config()


def count_results(configs: Iterable[CacheConfig]) -> int:
    """Return how many records of the merge of some indexes have a result, without building it.

    A record whose digest no other one has is not the same as any. So only the others are united,
    with those that they build on: indexes that share little take little memory.
    """
    read = list(configs)
    times = Counter(record.digest for config in read for record in config.records)
    union = _Union()
    alone = 0
    for config in read:
        shared = [at for at, record in enumerate(config.records) if times[record.digest] > 1]
        alone += sum(bool(record.results) for record in config.records if times[record.digest] == 1)
        if shared:
            union.add(config, _with_sources(config.records, shared))
    return alone + sum(
        number == into and bool(node.results) and times[node.digest] > 1
        for number, (into, node) in enumerate(zip(union.united_into, union.nodes, strict=True))
    )


def _with_sources(records: Sequence[Record], some: Iterable[int]) -> set[int]:
    """Return the positions of some records, and of all that they build on."""
    found = set(some)
    left = list(found)
    while left:
        sources = {link.source for links in records[left.pop()].inputs for link in links}
        left += sources - found
        found |= sources
    return found


class _Node:
    """A record while it may still be united with others."""

    __slots__ = ("digest", "inputs", "links", "results", "users")

    def __init__(self, digest: str, inputs: int) -> None:
        self.digest = digest
        self.inputs: list[set[_Edge]] = [set() for _ in range(inputs)]
        self.results: dict[_Chain, Nanoseconds] = {}
        self.users: dict[_Use, set[int]] = {}
        self.links = 0
        """How many links lead from it and to it."""

    @property
    def weight(self) -> int:
        return self.links + len(self.results)

    def keep_newest(self, chain: _Chain, created_at: Nanoseconds) -> None:
        if created_at >= self.results.get(chain, created_at):
            self.results[chain] = created_at


class _Union:
    """All records so far, no two the same (a congruence closure).

    `known` finds a record that was read before with the same links, as most are. Otherwise the
    links of a record show what it is the same as: `changed` holds those that others share and that
    have not been looked up since. Records that have become the same share one of those.

    Of two records that are united, the lighter is moved into the other, link by link: so each link
    moves at most log n times, although a record may gather thousands of them.
    """

    def __init__(self) -> None:
        self.layers = _LayerTable()
        self.nodes: list[_Node] = []
        self.united_into: list[int] = []
        self.known: dict[tuple[str, _Inputs], int] = {}
        self.changed: list[tuple[int, int, _Edge]] = []

    def add(self, config: CacheConfig, only: Container[int] | None = None) -> None:
        """Add the records of an index, or only some; they must include all that these build on."""
        layer_ids = self.layers.add(config.layers)
        node_ids = [0] * len(config.records)
        for position in dependency_order(sources_of(config.records)) or ():
            if only is not None and position not in only:
                continue
            record = config.records[position]
            number = node_ids[position] = self.add_record(record, node_ids)
            for result in record.results:
                layers = tuple([layer_ids[layer] for layer in result.layers])
                self.nodes[number].keep_newest((layers, result.with_parents), result.created_at)

    def add_record(self, record: Record, node_ids: Sequence[int]) -> int:
        """Return the number of the record that this one is, or has become part of."""
        inputs = tuple(
            [
                tuple([(self.find(node_ids[link.source]), link.selector) for link in links])
                for links in record.inputs
            ]
        )
        number = self.known.setdefault((record.digest, inputs), len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(_Node(record.digest, len(inputs)))
            self.united_into.append(number)
            for position, edges in enumerate(inputs):
                for edge in edges:
                    self.attach(number, position, edge)
            self.settle()
        return self.find(number)

    def find(self, number: int) -> int:
        while self.united_into[number] != number:
            self.united_into[number] = self.united_into[self.united_into[number]]
            number = self.united_into[number]
        return number

    def users(self, node: _Node, position: int, edge: _Edge) -> set[int]:
        """Return the records of the same digest, and as many inputs, that have a link."""
        source, selector = edge
        use = (node.digest, len(node.inputs), position, selector)
        return self.nodes[source].users.setdefault(use, set())

    def attach(self, number: int, position: int, edge: _Edge) -> None:
        """Give a record a link, unless it has it already."""
        node = self.nodes[number]
        if edge in node.inputs[position]:
            return
        users = self.users(node, position, edge)
        if users:
            self.changed.append((number, position, edge))
        users.add(number)
        node.inputs[position].add(edge)
        node.links += 1
        self.nodes[edge[0]].links += 1

    def detach(self, number: int, position: int, edge: _Edge) -> None:
        """Take a link from a record."""
        node = self.nodes[number]
        self.users(node, position, edge).discard(number)
        node.inputs[position].discard(edge)
        node.links -= 1
        self.nodes[edge[0]].links -= 1

    def settle(self) -> None:
        """Unite until no two records are the same."""
        while self.changed:
            number, position, (source, selector) = self.changed.pop()
            number = self.find(number)
            for other in self.same_as(number, position, (self.find(source), selector)):
                number = self.unite(number, self.find(other))

    def same_as(self, number: int, position: int, edge: _Edge) -> list[int]:
        """Return the records equal to this one, of those that share this link with it."""
        node = self.nodes[number]
        candidates = self.candidates(node, position, edge) - {number}
        return [
            other
            for other in candidates
            if all(
                not mine.isdisjoint(theirs)
                for mine, theirs in zip(node.inputs, self.nodes[other].inputs, strict=True)
            )
        ]

    def candidates(self, node: _Node, position: int, edge: _Edge) -> set[int]:
        """Return those that share a link, or those that share another input if they are fewer.

        Thousands of builds copy into the same base image, and each copies something else.
        """
        fewest = [self.users(node, position, edge)]
        count = len(fewest[0])
        for other, edges in enumerate(node.inputs):
            if other == position:
                continue
            group: list[set[int]] = []
            group_count = 0
            for one in edges:
                group.append(self.users(node, other, one))
                group_count += len(group[-1])
                if group_count >= count:
                    break
            else:
                fewest, count = group, group_count
        return set().union(*fewest)

    def unite(self, one: int, other: int) -> int:
        """Make one of two records, and return its number."""
        kept, gone = (
            (one, other) if self.nodes[one].weight >= self.nodes[other].weight else (other, one)
        )
        moved = self.nodes[gone]
        self.united_into[gone] = kept
        for chain, created_at in moved.results.items():
            self.nodes[kept].keep_newest(chain, created_at)
        edges = [(position, edge) for position, some in enumerate(moved.inputs) for edge in some]
        for position, edge in edges:
            self.detach(gone, position, edge)
        for position, (source, selector) in edges:
            self.attach(kept, position, (self.find(source), selector))
        for (_, _, position, selector), users in moved.users.items():
            for user in list(users):
                self.detach(user, position, (gone, selector))
                self.attach(user, position, (kept, selector))
        return kept

    def finish(self) -> None:
        """Drop what only finds records that are the same: nothing is added any more."""
        self.known.clear()
        for node in self.nodes:
            node.users.clear()

    def config(self) -> CacheConfig:
        """Return all of them. Each is dropped once it is there in its final form."""
        numbers = [n for n, into in enumerate(self.united_into) if into == n]
        at = {number: position for position, number in enumerate(numbers)}
        nodes = [self.nodes[number] for number in numbers]
        self.nodes.clear()
        for node in nodes:
            node.inputs = [{(at[s], selector) for s, selector in some} for some in node.inputs]
        inputs = leave_out_loops([node.inputs for node in nodes])
        records = [_record(nodes.pop(), record_inputs) for record_inputs in reversed(inputs)]
        records.reverse()
        return CacheConfig(layers=self.layers.layers(), records=tuple(records))


def _record(node: _Node, inputs: Sequence[set[_Edge]]) -> Record:
    return Record(
        digest=node.digest,
        results=tuple(
            [
                Result(layers, with_parents, created_at)
                for (layers, with_parents), created_at in node.results.items()
            ]
        ),
        inputs=tuple(
            [tuple([Link(source, selector) for source, selector in edges]) for edges in inputs]
        ),
    )


class _LayerTable:
    """Layers of several indexes, each once: the same blob on the same parents is the same layer."""

    def __init__(self) -> None:
        self.at: dict[tuple[Digest, int], int] = {}
        self.newest: dict[str, Layer] = {}

    def add(self, layers: Sequence[Layer]) -> list[int]:
        """Return the place in the table for each of `layers`."""
        for layer in layers:
            self.describe(layer)
        return number_layers(layers, self.at)

    def describe(self, layer: Layer) -> None:
        """Keep one description for each blob, as BuildKit does: the newest."""
        known = self.newest.setdefault(layer.blob, layer)
        if known is not layer and _description(layer) > _description(known):
            self.newest[layer.blob] = layer

    def layers(self) -> tuple[Layer, ...]:
        return tuple([self.newest[blob].on(parent) for blob, parent in self.at])


def _description(layer: Layer) -> tuple[Nanoseconds, str, str, int]:
    return layer.created_at, layer.diff_id, layer.media_type, layer.size
