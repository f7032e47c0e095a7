"""Merging: several indexes into one, with everything that any of them leads to."""

from collections.abc import Iterable, Sequence

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

    def __init__(self, digest: str, inputs: list[set[_Edge]]) -> None:
        self.digest = digest
        self.inputs = inputs
        self.results: dict[tuple[tuple[int, ...], bool], Nanoseconds] = {}
        self.users: set[int] = set()

    @property
    def weight(self) -> int:
        return len(self.users) + sum(map(len, self.inputs))


class _Union:
    """All records so far, no two the same (a congruence closure).

    `sharing` finds what a record is the same as; `changed` holds those whose links have changed
    since that was last looked up.
    """

    def __init__(self) -> None:
        self.layers = _LayerTable()
        self.nodes: list[_Node] = []
        self.united_into: list[int] = []
        self.sharing: dict[_Sharing, set[int]] = {}
        self.changed: list[int] = []

    def add(self, config: CacheConfig) -> None:
        layer_ids = self.layers.add(config.layers)
        node_ids: dict[int, int] = {}
        sources = [
            {link.source for links in record.inputs for link in links} for record in config.records
        ]
        for position in dependency_order(sources) or ():
            record = config.records[position]
            inputs = [
                {(self.find(node_ids[link.source]), link.selector) for link in links}
                for links in record.inputs
            ]
            node_ids[position] = self.add_node(_Node(record.digest, inputs), record, layer_ids)

    def add_node(self, node: _Node, record: Record, layer_ids: Sequence[int]) -> int:
        number = len(self.nodes)
        self.nodes.append(node)
        self.united_into.append(number)
        for result in record.results:
            layers = tuple(layer_ids[layer] for layer in result.layers)
            _keep_newest(node, (layers, result.with_parents), result.created_at)
        self.share(number)
        self.changed.append(number)
        self.settle()
        return self.find(number)

    def find(self, number: int) -> int:
        while self.united_into[number] != number:
            self.united_into[number] = self.united_into[self.united_into[number]]
            number = self.united_into[number]
        return number

    def share(self, number: int) -> None:
        node = self.nodes[number]
        for key in _sharing(node):
            self.sharing.setdefault(key, set()).add(number)
        for edges in node.inputs:
            for source, _ in edges:
                self.nodes[source].users.add(number)

    def unshare(self, number: int) -> None:
        node = self.nodes[number]
        for key in _sharing(node):
            self.sharing[key].discard(number)
        for edges in node.inputs:
            for source, _ in edges:
                self.nodes[source].users.discard(number)

    def settle(self) -> None:
        """Unite until no two records are the same."""
        while self.changed:
            number = self.find(self.changed.pop())
            for other in self.same_as(number):
                number = self.unite(number, self.find(other))

    def same_as(self, number: int) -> list[int]:
        node = self.nodes[number]
        # The input that the fewest share is the one to start from: thousands of builds copy into
        # the same base image, and each copies something else.
        groups = [
            [self.sharing[key] for key in _input_sharing(node, position)]
            for position in range(max(1, len(node.inputs)))
        ]
        fewest = min(groups, key=lambda group: sum(map(len, group)))
        candidates = set().union(*fewest) - {number}
        return [
            other
            for other in candidates
            if all(
                not mine.isdisjoint(theirs)
                for mine, theirs in zip(node.inputs, self.nodes[other].inputs, strict=True)
            )
        ]

    def unite(self, one: int, other: int) -> int:
        """Make one of two records, and give its number."""
        if one == other:
            return one
        kept, gone = (
            (one, other) if self.nodes[one].weight >= self.nodes[other].weight else (other, one)
        )
        node, moved = self.nodes[kept], self.nodes[gone]
        users = set(moved.users)
        self.unshare(gone)
        self.united_into[gone] = kept
        for key, created_at in moved.results.items():
            _keep_newest(node, key, created_at)
        self.relink(kept, [a | b for a, b in zip(node.inputs, moved.inputs, strict=True)])
        for user in users - {gone}:
            self.relink(user, self.nodes[user].inputs)
        return kept

    def relink(self, number: int, inputs: list[set[_Edge]]) -> None:
        """Give a record these links, from the records that the sources have become."""
        self.unshare(number)
        self.nodes[number].inputs = [
            {(self.find(source), selector) for source, selector in edges} for edges in inputs
        ]
        self.share(number)
        self.changed.append(number)

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
        """Give the place in the table for each of `layers`."""
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


def _sharing(node: _Node) -> Iterable[_Sharing]:
    for position in range(max(1, len(node.inputs))):
        yield from _input_sharing(node, position)


def _input_sharing(node: _Node, position: int) -> Iterable[_Sharing]:
    if not node.inputs:
        yield node.digest, 0, 0, 0, ""
        return
    for source, selector in node.inputs[position]:
        yield node.digest, len(node.inputs), position, source, selector


def _keep_newest(node: _Node, key: tuple[tuple[int, ...], bool], created_at: Nanoseconds) -> None:
    node.results[key] = max(created_at, node.results.get(key, created_at))
