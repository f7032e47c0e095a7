"""Merging: several indexes into one, with everything that any of them leads to."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from maintainer.cacheconfig.loops import leave_out_loops
from maintainer.cacheconfig.model import NO_PARENT, CacheConfig, Layer, Link, Record, Result
from maintainer.cacheconfig.normal import normalize
from maintainer.cacheconfig.order import dependency_order
from maintainer.cacheconfig.timestamps import Nanoseconds

_Edge = tuple[int, str]
"""A source record and a selector."""
_Sharing = tuple[str, int, int, int, str]
"""Digest, number of inputs, input, source, selector: what two records share that may be one."""
_Use = tuple[int, int, int, str]
"""A record, and one of its links: input, source, selector."""

_NO_INPUT = (0, 0, "")
"""The link that all records without inputs share."""


def merge(configs: Iterable[CacheConfig]) -> CacheConfig:
    """Unite indexes, in normal form. The order does not matter, nor does merging something twice.

    Records without inputs are the same when their digests are equal. Records with inputs are the
    same when their digests are equal and, for every input, they share a link; then their links and
    results are united, which can make the records that build on them the same, and so on upwards
    until no two are. (An importer unites what it reads in the same way.) Layers are the same when
    their blobs and all the blobs below are. A link that would close a loop is left out.

    Nearly linear in the records and links, for what builds write.
    """
    union = _Union()
    for config in configs:
        union.add(config)
    return normalize(union.config())


class _Node:
    """A record while it may still be united with others."""

    __slots__ = ("digest", "inputs", "results", "users")

    def __init__(self, digest: str, inputs: int) -> None:
        self.digest = digest
        self.inputs: list[set[_Edge]] = [set() for _ in range(inputs)]
        self.results: dict[tuple[tuple[int, ...], bool], Nanoseconds] = {}
        self.users: set[_Use] = set()

    @property
    def weight(self) -> int:
        return len(self.users) + sum(map(len, self.inputs)) + len(self.results)


class _Union:
    """All records so far, no two the same (a congruence closure).

    `sharing` finds what a record is the same as; `changed` holds the links that a record has got
    since that was last looked up. Records that have become the same share one of those.

    Of two records that are united, the lighter is moved into the other, link by link: so each link
    moves at most log n times, although a record may gather thousands of them.
    """

    def __init__(self) -> None:
        self.layers = _LayerTable()
        self.nodes: list[_Node] = []
        self.united_into: list[int] = []
        self.sharing: dict[_Sharing, set[int]] = {}
        self.changed: list[_Use] = []

    def add(self, config: CacheConfig) -> None:
        layer_ids = self.layers.add(config.layers)
        node_ids: dict[int, int] = {}
        sources = [
            {link.source for links in record.inputs for link in links} for record in config.records
        ]
        for position in dependency_order(sources) or ():
            node_ids[position] = self.add_record(config.records[position], node_ids, layer_ids)

    def add_record(
        self, record: Record, node_ids: Mapping[int, int], layer_ids: Sequence[int]
    ) -> int:
        number = len(self.nodes)
        node = _Node(record.digest, len(record.inputs))
        self.nodes.append(node)
        self.united_into.append(number)
        for result in record.results:
            layers = tuple(layer_ids[layer] for layer in result.layers)
            _keep_newest(node, (layers, result.with_parents), result.created_at)
        for position, links in enumerate(record.inputs):
            for link in links:
                source = self.find(node_ids[link.source])
                self.attach((number, position, source, link.selector))
        if not record.inputs:
            self.attach((number, *_NO_INPUT))
        self.settle()
        return self.find(number)

    def find(self, number: int) -> int:
        while self.united_into[number] != number:
            self.united_into[number] = self.united_into[self.united_into[number]]
            number = self.united_into[number]
        return number

    def attach(self, use: _Use) -> None:
        """Return a record a link, unless it has it already."""
        number, position, source, selector = use
        node = self.nodes[number]
        if node.inputs:
            if (source, selector) in node.inputs[position]:
                return
            node.inputs[position].add((source, selector))
            self.nodes[source].users.add(use)
        self.sharing.setdefault(_shared(node, position, source, selector), set()).add(number)
        self.changed.append(use)

    def detach(self, use: _Use) -> None:
        """Take a link from a record."""
        number, position, source, selector = use
        node = self.nodes[number]
        if node.inputs:
            node.inputs[position].discard((source, selector))
            self.nodes[source].users.discard(use)
        self.sharing[_shared(node, position, source, selector)].discard(number)

    def settle(self) -> None:
        """Unite until no two records are the same."""
        while self.changed:
            number, position, source, selector = self.changed.pop()
            number = self.find(number)
            for other in self.same_as((number, position, self.find(source), selector)):
                number = self.unite(number, self.find(other))

    def same_as(self, use: _Use) -> list[int]:
        """Return the records equal to this one, of those that share this link with it."""
        number, position, source, selector = use
        node = self.nodes[number]
        candidates = self.candidates(node, position, source, selector) - {number}
        return [
            other
            for other in candidates
            if all(
                not mine.isdisjoint(theirs)
                for mine, theirs in zip(node.inputs, self.nodes[other].inputs, strict=True)
            )
        ]

    def candidates(self, node: _Node, position: int, source: int, selector: str) -> set[int]:
        """Return those that share a link, or those that share another input if they are fewer.

        Thousands of builds copy into the same base image, and each copies something else.
        """
        fewest = [self.sharing[_shared(node, position, source, selector)]]
        count = len(fewest[0])
        for other, edges in enumerate(node.inputs):
            if other == position:
                continue
            group: list[set[int]] = []
            group_count = 0
            for edge in edges:
                group.append(self.sharing[_shared(node, other, *edge)])
                group_count += len(group[-1])
                if group_count >= count:
                    break
            else:
                fewest, count = group, group_count
        return set().union(*fewest)

    def unite(self, one: int, other: int) -> int:
        """Make one of two records, and give its number."""
        kept, gone = (
            (one, other) if self.nodes[one].weight >= self.nodes[other].weight else (other, one)
        )
        moved = self.nodes[gone]
        uses = [
            (gone, position, *edge) for position, edges in enumerate(moved.inputs) for edge in edges
        ] or [(gone, *_NO_INPUT)]
        for use in uses:
            self.detach(use)
        self.united_into[gone] = kept
        for key, created_at in moved.results.items():
            _keep_newest(self.nodes[kept], key, created_at)
        for _, position, source, selector in uses:
            self.attach((kept, position, self.find(source), selector))
        for use in list(moved.users):
            user, position, _, selector = use
            self.detach(use)
            self.attach((user, position, kept, selector))
        return kept

    def config(self) -> CacheConfig:
        numbers = [n for n in range(len(self.nodes)) if self.united_into[n] == n]
        at = {number: position for position, number in enumerate(numbers)}
        inputs = leave_out_loops(
            [
                [{(at[s], selector) for s, selector in edges} for edges in self.nodes[n].inputs]
                for n in numbers
            ]
        )
        return CacheConfig(
            layers=self.layers.layers(),
            records=tuple(
                Record(
                    digest=self.nodes[number].digest,
                    results=tuple(
                        Result(layers, with_parents, created_at)
                        for (layers, with_parents), created_at in self.nodes[number].results.items()
                    ),
                    inputs=tuple(
                        tuple(Link(source, selector) for source, selector in edges)
                        for edges in inputs[position]
                    ),
                )
                for position, number in enumerate(numbers)
            ),
        )


class _LayerTable:
    """Layers of several indexes, each once: the same blob on the same parents is the same layer."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, int], int] = {}
        self.newest: dict[str, Layer] = {}

    def add(self, layers: Sequence[Layer]) -> list[int]:
        """Return the place in the table for each of `layers`."""
        places = [NO_PARENT] * len(layers)
        parents = [() if layer.parent == NO_PARENT else (layer.parent,) for layer in layers]
        for position in dependency_order(parents) or ():
            layer = layers[position]
            parent = NO_PARENT if layer.parent == NO_PARENT else places[layer.parent]
            places[position] = self.at.setdefault((layer.blob, parent), len(self.at))
            self.describe(layer)
        return places

    def describe(self, layer: Layer) -> None:
        """Keep one description for each blob, as BuildKit does: the newest."""
        known = self.newest.get(layer.blob, layer)
        self.newest[layer.blob] = max(known, layer, key=_description)

    def layers(self) -> tuple[Layer, ...]:
        return tuple(
            msgspec.structs.replace(self.newest[blob], parent=parent) for blob, parent in self.at
        )


def _description(layer: Layer) -> tuple[Nanoseconds, str, str, int]:
    return layer.created_at, layer.diff_id, layer.media_type, layer.size


def _shared(node: _Node, position: int, source: int, selector: str) -> _Sharing:
    """Return what the link is found by; records without inputs share the lack of them."""
    if not node.inputs:
        return node.digest, 0, *_NO_INPUT
    return node.digest, len(node.inputs), position, source, selector


def _keep_newest(node: _Node, key: tuple[tuple[int, ...], bool], created_at: Nanoseconds) -> None:
    node.results[key] = max(created_at, node.results.get(key, created_at))
