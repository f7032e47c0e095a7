"""Writes the contents of generations into the graph: layers, records, results and links."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import count

from sqlalchemy import Connection, func, insert, select

from maintainer.cacheconfig import CacheConfig, Digest
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.order import dependency_order
from maintainer.cacheconfig.timestamps import format_time
from maintainer.graph.models import (
    Base,
    BlobRow,
    GenerationLayerRow,
    LayerRow,
    LinkRow,
    RecordRow,
    ResultLayerRow,
    ResultRow,
)

_Layer = tuple[int, int | None]
"""The rows of a blob and of the layer below."""
_Row = dict[str, object]


class ContentWriter:
    """Writes the contents of the generations of one target, within one transaction.

    The blobs and layers that the graph knows are read once, whatever the number of generations.
    """

    def __init__(self, connection: Connection, target_id: int, now: datetime) -> None:
        self.now = now
        self._connection = connection
        self._target_id = target_id

    def write(self, generation: int, config: CacheConfig) -> None:
        """Record the layers and records of a new generation."""
        layers = self._write_layers(config)
        held = [{"generation_id": generation, "layer_id": layer} for layer in sorted(set(layers))]
        self._insert(GenerationLayerRow, held)
        first_record, first_result = self._next_id(RecordRow), self._next_id(ResultRow)
        records: list[_Row] = []
        results: list[_Row] = []
        result_layers: list[_Row] = []
        links: list[_Row] = []
        for position, record in enumerate(config.records):
            number = first_record + position
            records.append(
                {
                    "id": number,
                    "generation_id": generation,
                    "position": position,
                    "digest": record.digest,
                }
            )
            for result in record.results:
                result_id = first_result + len(results)
                results.append(
                    {
                        "id": result_id,
                        "record_id": number,
                        "with_parents": result.with_parents,
                        "created_at": format_time(result.created_at),
                    }
                )
                result_layers += [
                    {"result_id": result_id, "position": place, "layer_id": layers[layer]}
                    for place, layer in enumerate(result.layers)
                ]
            links += [
                {
                    "record_id": number,
                    "input": place,
                    "source_id": first_record + source,
                    "selector": selector,
                }
                for place, input_ in enumerate(record.inputs)
                for source, selector in sorted({(link.source, link.selector) for link in input_})
            ]
        self._insert(RecordRow, records)
        self._insert(ResultRow, results)
        self._insert(ResultLayerRow, result_layers)
        self._insert(LinkRow, links)

    def _write_layers(self, config: CacheConfig) -> list[int]:
        """Return the row of each layer; a blob on the same parents is the same layer everywhere."""
        self._write_blobs(config.blobs)
        following = self._next_id(LayerRow)
        rows: list[_Row] = []
        places = [0] * len(config.layers)
        parents = [() if one.parent == NO_PARENT else (one.parent,) for one in config.layers]
        for position in dependency_order(parents) or ():
            layer = config.layers[position]
            parent = None if layer.parent == NO_PARENT else places[layer.parent]
            identity = (self._blobs[layer.blob], parent)
            if identity not in self._layers:
                self._layers[identity] = following + len(rows)
                rows.append(
                    {
                        "id": self._layers[identity],
                        "blob_id": identity[0],
                        "parent_id": parent,
                        "diff_id": layer.diff_id,
                        "media_type": layer.media_type,
                        "size": layer.size,
                    }
                )
            places[position] = self._layers[identity]
        self._insert(LayerRow, rows)
        return places

    def _write_blobs(self, digests: Iterable[Digest]) -> None:
        new = sorted(set(digests) - self._blobs.keys())
        numbers = dict(zip(new, count(self._next_id(BlobRow)), strict=False))
        self._insert(
            BlobRow,
            [
                {
                    "id": number,
                    "target_id": self._target_id,
                    "digest": digest,
                    "first_seen_at": self.now,
                }
                for digest, number in numbers.items()
            ],
        )
        self._blobs.update(numbers)

    @cached_property
    def _blobs(self) -> dict[Digest, int]:
        rows = self._connection.execute(
            select(BlobRow.digest, BlobRow.id).where(BlobRow.target_id == self._target_id)
        )
        return {Digest(row.digest): row.id for row in rows}

    @cached_property
    def _layers(self) -> dict[_Layer, int]:
        rows = self._connection.execute(
            select(LayerRow.blob_id, LayerRow.parent_id, LayerRow.id)
            .join(BlobRow, BlobRow.id == LayerRow.blob_id)
            .where(BlobRow.target_id == self._target_id)
        )
        return {(row.blob_id, row.parent_id): row.id for row in rows}

    def _next_id(self, table: type[BlobRow | LayerRow | RecordRow | ResultRow]) -> int:
        """Return the first free id: the run that holds the file is the only one that writes."""
        highest = select(func.coalesce(func.max(table.id), 0))
        return int(self._connection.execute(highest).scalar_one()) + 1

    def _insert(self, table: type[Base], rows: Sequence[Mapping[str, object]]) -> None:
        if rows:
            self._connection.execute(insert(table), rows)
