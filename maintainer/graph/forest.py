"""The layers of every scope, as its newest index references them."""

import msgspec
from sqlalchemy import Connection, text

from maintainer.errors import MaintainerError
from maintainer.sanitize import is_unicode, printable


class TreeLayer(msgspec.Struct, frozen=True):
    """A layer in a tree."""

    id: int
    """The same in every scope that stands on the same layers."""
    parent_id: int | None
    digest: str
    size: int
    """Bytes, as stored or, where the store does not list, as an index says."""
    is_stored: bool
    results: int
    """The results that end in it."""


class ScopeTree(msgspec.Struct, frozen=True):
    """The layers of one scope in one ref."""

    target: str
    scope: str
    ref: str
    key: str
    """The newest generation, which builders read."""
    layers: tuple[TreeLayer, ...]


_NEWEST = """
    WITH numbered AS (
        SELECT generation.id, generation.key, target.name AS target, scope.name AS scope,
               ref.name AS ref, row_number() OVER (
                   PARTITION BY generation.scope_id, generation.ref_id, generation.signed
                   ORDER BY generation.missing_since IS NOT NULL, generation.number DESC,
                            generation.id DESC) AS place
        FROM generation
        JOIN target ON target.id = generation.target_id
        JOIN scope ON scope.id = generation.scope_id
        JOIN ref ON ref.id = generation.ref_id
        WHERE generation.content IS NOT NULL
          AND (generation.missing_since IS NULL OR EXISTS (
              SELECT 1 FROM cache_index AS kept JOIN memory ON memory.index_id = kept.id
              WHERE kept.ref_id = generation.ref_id AND kept.scope_id = generation.scope_id
                AND kept.signed = generation.signed))
    ),
    newest AS (SELECT * FROM numbered WHERE place = 1 AND (:scope IS NULL OR scope = :scope))
"""

_INDEXES = text(
    _NEWEST  # noqa: S608 - both are ours
    + "SELECT id, key, target, scope, ref FROM newest ORDER BY target, scope, ref, key"
)

_LAYERS = text(
    _NEWEST  # noqa: S608 - both are ours
    + """,
    ends AS (
        SELECT record.generation_id, result_layer.layer_id, count(*) AS results
        FROM newest
        JOIN record ON record.generation_id = newest.id
        JOIN result ON result.record_id = record.id
        JOIN result_layer ON result_layer.result_id = result.id
        GROUP BY record.generation_id, result_layer.layer_id
    ),
    stored AS (
        SELECT target_id, digest, max(size) AS size FROM entry
        WHERE kind = 'blob' AND missing_since IS NULL GROUP BY target_id, digest
    )
    SELECT newest.id AS generation_id, layer.id, layer.parent_id, blob.digest,
           coalesce(stored.size, layer.size) AS size, blob.missing_since IS NULL AS is_stored,
           coalesce(ends.results, 0) AS results
    FROM newest
    JOIN generation_layer ON generation_layer.generation_id = newest.id
    JOIN layer ON layer.id = generation_layer.layer_id
    JOIN blob ON blob.id = layer.blob_id
    LEFT JOIN stored ON stored.target_id = blob.target_id AND stored.digest = blob.digest
    LEFT JOIN ends ON ends.generation_id = newest.id AND ends.layer_id = layer.id
    ORDER BY newest.id, size DESC, blob.digest, layer.id
    """
)


def load_forest(connection: Connection, scope: str | None) -> list[ScopeTree]:
    """Return the layers of a scope in each ref, or of all scopes.

    Raises MaintainerError if the database knows no index of the scope.
    """
    if scope is not None and not is_unicode(scope):
        raise MaintainerError(f"the database knows no index of the scope {printable(scope)}")
    layers: dict[int, list[TreeLayer]] = {}
    for row in connection.execute(_LAYERS, {"scope": scope}):
        layers.setdefault(row.generation_id, []).append(
            TreeLayer(row.id, row.parent_id, row.digest, row.size, bool(row.is_stored), row.results)
        )
    trees = [
        ScopeTree(row.target, row.scope, row.ref, row.key, tuple(layers.get(row.id, ())))
        for row in connection.execute(_INDEXES, {"scope": scope})
    ]
    if not trees:
        what = "no index" if scope is None else f"no index of the scope {printable(scope)}"
        raise MaintainerError(f"the database knows {what}")
    return trees
