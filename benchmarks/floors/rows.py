"""Records a cache by raw SQL: a row for each entry, index, layer, record, result and link.

    python -m benchmarks.floors.rows DATABASE GENERATIONS OTHERS

It prints the CPU seconds of the one transaction, and the number of indexes.
"""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from benchmarks.processes import user_seconds
from benchmarks.service import make_cache
from maintainer.cacheconfig import CacheConfig, IndexKey, Layer, decode, parse_key
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.emulator import ActionsCache

Row = tuple[object, ...]

_TABLES = {
    "entry": "id INTEGER PRIMARY KEY, ref, key, version, size, created_at, last_accessed_at",
    "generation": "id INTEGER PRIMARY KEY, key, content",
    "layer": "id INTEGER PRIMARY KEY, blob, parent, diff_id, media_type, size, created_at",
    "generation_layer": "generation, layer, PRIMARY KEY (generation, layer)",
    "record": "id INTEGER PRIMARY KEY, generation, position, digest",
    "result": "id INTEGER PRIMARY KEY, record, created_at",
    "result_layer": "result, position, layer, PRIMARY KEY (result, position)",
    "link": "record, input, source, selector, PRIMARY KEY (record, input, source, selector)",
}


@dataclass
class Rows:
    """The rows, by table."""

    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in _TABLES})
    _layers: dict[tuple[str, int | None], int] = field(default_factory=dict)

    def add(self, cache: ActionsCache) -> None:
        """Add the rows of a cache."""
        for entry in cache.entries():
            times = (entry.created_at.timestamp(), entry.last_accessed_at.timestamp())
            row = (entry.id, entry.ref, entry.key, entry.version, entry.size, *times)
            self.tables["entry"].append(row)
            if isinstance(parse_key(entry.key), IndexKey) and entry.content:
                self.tables["generation"].append((entry.id, entry.key, entry.content))
                self._add_index(entry.id, decode(entry.content))

    def _add_index(self, generation: int, config: CacheConfig) -> None:
        layers = [*self._layer_ids(config)]
        self.tables["generation_layer"] += [(generation, each) for each in sorted(set(layers))]
        first = len(self.tables["record"])
        for position, record in enumerate(config.records):
            at = first + position
            self.tables["record"].append((at, generation, position, record.digest))
            for result in record.results:
                number = len(self.tables["result"])
                self.tables["result"].append((number, at, str(result.created_at)))
                self.tables["result_layer"] += [
                    (number, place, layers[layer]) for place, layer in enumerate(result.layers)
                ]
            self.tables["link"] += [
                (at, place, first + link.source, link.selector)
                for place, links in enumerate(record.inputs)
                for link in links
            ]

    def _layer_ids(self, config: CacheConfig) -> Iterator[int]:
        """Return the number of each layer; two on the same layers are one."""
        for layer in config.layers:
            yield self._layer_id(config, layer)

    def _layer_id(self, config: CacheConfig, layer: Layer) -> int:
        below = layer.parent
        parent = None if below == NO_PARENT else self._layer_id(config, config.layers[below])
        number = self._layers.setdefault((layer.blob, parent), len(self._layers))
        if number == len(self.tables["layer"]):
            about = (layer.diff_id, layer.media_type, layer.size, str(layer.created_at))
            self.tables["layer"].append((number, layer.blob, parent, *about))
        return number


def write(connection: sqlite3.Connection, rows: Rows) -> float:
    """Write the rows; return the CPU seconds."""
    for name, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE {name} ({columns})")
    began = user_seconds()
    with connection:
        for name, table in rows.tables.items():
            places = ", ".join("?" * len(table[0]))
            connection.executemany(f"INSERT INTO {name} VALUES ({places})", table)
    return user_seconds() - began


def main(path: str, generations: int, others: int) -> None:
    """Write a database, and print what it took."""
    rows = Rows()
    rows.add(make_cache(generations, others))
    with closing(sqlite3.connect(path)) as connection:
        took = write(connection, rows)
        (count,) = connection.execute("SELECT count(*) FROM generation").fetchone()
    print(took, count)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
