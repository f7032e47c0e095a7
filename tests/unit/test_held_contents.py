"""What a run holds of the indexes that it reads, until its end."""

import tracemalloc
from datetime import UTC, date, datetime
from hashlib import sha256

from maintainer.cacheconfig import (
    NO_REF,
    CacheConfig,
    Digest,
    IndexId,
    Layer,
    Link,
    Record,
    Result,
    Scope,
    content_digest,
    merge,
    prune,
)
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.oci import encode_oci, read_manifest
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.mark import mark
from maintainer.model.content import Content, unpack
from maintainer.model.decision import Rules
from maintainer.model.remembered import Remembered
from maintainer.policy.context import PlanContext
from maintainer.stores.oci import decode_tag, read_tag
from tests.snapshots import a_snapshot, an_index, blob, hours

_RESULTS = 100
_INDEXES = 10
_AT = Nanoseconds(1_600_000_000 * 10**9)
_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_PEAK_OF_A_MERGE = 2_000
"""Bytes for each record, of which the merge itself has 450; 2,500 if nothing was dropped."""


def _digest(name: str) -> Digest:
    return Digest(f"sha256:{sha256(name.encode()).hexdigest()}")


def _export(number: int) -> CacheConfig:
    """Return an index of one chain of layers, as a build exports it."""
    layers = tuple(
        Layer(_digest(f"{number} {n}"), n - 1 if n else NO_PARENT, _digest(f"{n}"), _TYPE, n, _AT)
        for n in range(_RESULTS)
    )
    records = tuple(
        Record(
            _digest(f"key {number} {n}"),
            (Result((n,), with_parents=True, created_at=_AT),),
            ((Link(n - 1),),) if n else (),
        )
        for n in range(_RESULTS)
    )
    return CacheConfig(layers, records)


def _tag(number: int) -> tuple[bytes, bytes]:
    """Return the manifest and the config of a tag."""
    encoded = encode_oci(_export(number))
    return encoded.manifest, encoded.config


def _hold(manifest: bytes, config: bytes, live: frozenset[Digest]) -> object:
    """Return what the stages of a run hold of one tag."""
    known = read_manifest(manifest)
    assert known
    index = IndexId(NO_REF, Scope("web"))
    decoded, violation = decode_tag(known, config, len(manifest))
    read = read_tag(index, content_digest(manifest), decoded, violation, _NOW)
    assert read.config
    remembered = Remembered().with_export(read.config, None, date(2026, 1, 1))
    return read, remembered, prune(remembered.merged(), live), remembered.blobs


def test_all_stages_hold_each_result_once() -> None:
    tags = [_tag(number) for number in range(_INDEXES)]
    live = frozenset(_digest(f"{tag} {n}") for tag in range(_INDEXES) for n in range(_RESULTS))
    # What is made once does not count, nor does the interpreter's table of texts that are in memory
    # once: it grows by megabytes at a time.
    texts = [_hold(*tag, live) for tag in tags]

    tracemalloc.start()
    try:
        held = [_hold(*tag, live) for tag in tags]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(held) == len(texts) == _INDEXES
    assert used / (_INDEXES * _RESULTS) < 900  # Bytes; each copy has 600.


def _tag_of_a_build(name: str) -> IndexId:
    return IndexId(NO_REF, Scope(name))


def test_what_builders_can_use_of_an_export_is_held_once_although_builds_order_it_otherwise() -> (
    None
):
    world = a_snapshot(reading=(NO_REF,)).with_blobs("b", "a")
    world.with_generation(1, "b", "a", of=_tag_of_a_build("web"))

    (index,) = mark(world.build()).indexes

    assert index.usable is index.merged
    assert index.usable == prune(an_index("b", "a"), {blob("a"), blob("b")})
    assert index.usable != an_index("b", "a")


def test_blobs_of_one_index_share_what_leads_to_them_and_others_have_all_that_do() -> None:
    world = a_snapshot(reading=(NO_REF,)).with_blobs("base", "a", "b", "c", "d")
    world.with_generation(1, "base", "a", "b", of=_tag_of_a_build("one"))
    world.with_generation(1, "base", "c", of=_tag_of_a_build("two"))
    world.with_generation(1, "base", "d", of=_tag_of_a_build("three"))

    referenced_by = PlanContext.of(mark(world.build()), Rules(grace=hours(24))).referenced_by

    assert referenced_by[blob("a")] is referenced_by[blob("b")]
    of_indexes = {
        name: {one.scope for one in referenced_by[blob(name)]} for name in ("base", "a", "c")
    }
    assert of_indexes == {"base": {"one", "two", "three"}, "a": {"one"}, "c": {"two"}}


def test_a_merge_drops_what_it_needs_no_more_while_it_is_made() -> None:
    configs = [_export(number) for number in range(_INDEXES)]
    merged = merge(configs)

    tracemalloc.start()
    try:
        assert merge(configs) == merged
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak / len(merged.records) < _PEAK_OF_A_MERGE


def test_content_that_is_held_comes_back_and_what_is_not_compressed_is_left_to_its_reader() -> None:
    content = b"{}" * 100

    assert unpack(Content.of(content).packed) == content
    assert unpack(content) == content
