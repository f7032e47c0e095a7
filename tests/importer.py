"""What BuildKit's importer makes of an index: a model, written from facts and without our own code.

It reads the records into one graph of items and then fills a look-up table: from each leaf, in any
order, down the links to their sources. Go walks its maps in another order each time; here a seeded
`Random` shuffles instead.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple


class Key(NamedTuple):
    """How the table is asked: from an item, by a digest, an input and a selector."""

    source: int
    digest: str
    input: int
    selector: str


class Link(NamedTuple):
    """One way to an item."""

    input: int
    source: int
    selector: str


@dataclass(eq=False)
class Item:
    """A cache key."""

    number: int
    digest: str
    results: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    """The blobs of each result from the bottom up, and when it was made."""
    links: set[Link] = field(default_factory=set)
    children: dict[tuple[str, int, str], set[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """The items of an index, and the table by which an importer finds them."""

    items: dict[int, Item]
    stored: frozenset[int]
    table: dict[Key, set[int]]

    def lost_links(self) -> list[tuple[Item, Link]]:
        """Return the links that the index has and the table lacks."""
        return [
            (item, link)
            for item in self.items.values()
            for link in sorted(item.links)
            if item.number not in self._by(item, link)
        ]

    def found(self) -> set[int]:
        """Return the items that a builder finds which has each of their inputs in some way."""
        found: set[int] = set()
        while True:
            new = {n for n in self.stored - found if self._is_found(self.items[n], found)}
            if not new:
                return found
            found |= new

    def ids(self) -> dict[int, str]:
        """Return by which ID a builder knows each item, whichever index it has read it from.

        Go hashes the links of an input in any order; here it is always the same.
        """
        found: dict[int, str] = {}

        def find(item: Item) -> str:
            if item.number not in found:
                links = sorted(
                    (one.input, find(self.items[one.source]), one.selector) for one in item.links
                )
                found[item.number] = str(hash((item.digest, *links))) if links else item.digest
            return found[item.number]

        for item in self.items.values():
            find(item)
        return found

    def step_ids(self) -> set[str]:
        """Return the IDs of what builds on something: all else has its digest for an ID."""
        ids = self.ids()
        return {ids[item.number] for item in self.items.values() if item.links}

    def _is_found(self, item: Item, found: set[int]) -> bool:
        inputs = {link.input for link in item.links}
        ways = {
            link.input
            for link in item.links
            if link.source in found and item.number in self._by(item, link)
        }
        return inputs == ways

    def _by(self, item: Item, link: Link) -> set[int]:
        return self.table.get(Key(link.source, item.digest, link.input, link.selector), set())


def import_index(content: bytes, random: Random) -> Imported:
    """Return what an importer makes of a valid index when it walks it in some order."""
    items = _Graph(json.loads(content)).items
    leaves = [item for item in items.values() if not any(item.children.values())]
    random.shuffle(leaves)
    walk = _Walk(items, random)
    for leaf in leaves:
        walk.store(leaf.number, {})
    return Imported(items, frozenset(walk.stored), walk.table)


class _Graph:
    """The records of an index as items: those that share a link for each input are the same."""

    def __init__(self, index: dict[str, Any]) -> None:
        self.items: dict[int, Item] = {}
        self._index = index
        self._of_record: dict[int, int] = {}
        for position in range(len(index.get("records") or [])):
            self._add(position)

    def _add(self, position: int) -> int | None:
        if position in self._of_record:
            return self._of_record[position]
        record = self._index["records"][position]
        if record.get("digest", "").startswith("random:"):
            return None
        links = set()
        for number, alternatives in enumerate(record.get("inputs") or []):
            for one in alternatives:
                source = self._add(one["link"])
                assert source is not None, "a link to a record that is skipped: refused"
                links.add(Link(number, source, one.get("selector", "")))
        item = self._find(record.get("digest", ""), links)
        item.results += self._results(record)
        for link in links:
            if not self._leads_to(item.number, link.source):
                item.links.add(link)
                source_of = self.items[link.source].children
                source_of.setdefault((item.digest, link.input, link.selector), set()).add(
                    item.number
                )
        self._of_record[position] = item.number
        return item.number

    def _find(self, digest: str, links: set[Link]) -> Item:
        """Return the item that this record is the same as, or a new one."""
        if not links:
            same = {n for n, one in self.items.items() if one.digest == digest and not one.links}
        else:
            by_input: defaultdict[int, set[int]] = defaultdict(set)
            for number, source, selector in links:
                children = self.items[source].children
                by_input[number] |= children.get((digest, number, selector), set())
            same = set.intersection(*by_input.values())
        assert len(same) <= 1, "twins"
        if same:
            return self.items[same.pop()]
        item = Item(len(self.items), digest)
        self.items[item.number] = item
        return item

    def _leads_to(self, item: int, other: int) -> bool:
        """Return whether `other` builds on `item`, so that a link between them would be a loop."""
        seen, waiting = {item}, [item]
        while waiting:
            for children in self.items[waiting.pop()].children.values():
                waiting += children - seen
                seen |= children
        return other in seen

    def _results(self, record: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
        layers = self._index.get("layers") or []
        found = []
        for one in record.get("layers") or []:
            chain, at = [], one["layer"]
            while at != -1:
                chain.append(layers[at]["blob"])
                at = layers[at].get("parent", 0)
            found.append((tuple(reversed(chain)), one["createdAt"]))
        return found + [
            (tuple(layers[at]["blob"] for at in one["layers"]), one["createdAt"])
            for one in record.get("chains") or []
        ]


class _Walk:
    def __init__(self, items: dict[int, Item], random: Random) -> None:
        self.stored: set[int] = set()
        self.table: dict[Key, set[int]] = {}
        self._items = items
        self._random = random

    def store(self, number: int, visited: dict[int, int | None]) -> int | None:
        """Store an item and what it builds on; None where its second visit gives nothing."""
        if number in visited:
            return visited[number]
        visited[number] = None
        if number in self.stored:
            return number  # From an earlier walk; it stays without a value in this one.
        item = self._items[number]
        links = sorted(item.links)
        self._random.shuffle(links)
        for link in sorted(links, key=lambda link: link.input):
            source = self.store(link.source, visited)
            if source is not None:
                key = Key(source, item.digest, link.input, link.selector)
                self.table.setdefault(key, set()).add(number)
        self.stored.add(number)
        visited[number] = number
        return number
