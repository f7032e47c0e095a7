"""An index as an OCI layout holds it: read as an importer does, written in the form found."""

import json
from typing import Any

import pytest
from hypothesis import given

from maintainer.cacheconfig import CacheConfig, Sink, merge, prune
from maintainer.cacheconfig.oci import (
    CONFIG_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    CacheManifest,
    decode_oci,
    encode_oci,
    read_manifest,
)
from maintainer.errors import InvalidIndexError
from tests.worlds import BLOBS, any_index

_DIFF = "containerd.io/uncompressed"


def _described(blob: str, **more: str) -> dict[str, Any]:
    annotations = {_DIFF: BLOBS[5], "buildkit/createdat": "2026-01-01T00:00:00Z"} | more
    return {"mediaType": "layer", "digest": blob, "size": 7, "annotations": annotations}


def _manifest(*blobs: dict[str, Any], form: str = MANIFEST_TYPE) -> CacheManifest:
    head = {"mediaType": CONFIG_TYPE, "digest": BLOBS[0], "size": 2}
    content: dict[str, Any] = {"mediaType": form}
    if form == MANIFEST_TYPE:
        content |= {"config": head, "layers": blobs}
    else:
        content |= {"manifests": [*blobs, head]}
    read = read_manifest(json.dumps(content).encode())
    assert read
    return read


@given(any_index())
def test_what_is_written_is_read_as_it_was_meant(config: CacheConfig) -> None:
    normal = merge([config])

    for form in (None, _manifest(), _manifest(form=INDEX_TYPE)):
        encoded = encode_oci(normal, form=form)
        manifest = read_manifest(encoded.manifest)
        assert manifest
        assert manifest.lists_all == (form is not None and form.lists_all)
        assert decode_oci(manifest, encoded.config).config == normal


@pytest.mark.parametrize("form", [MANIFEST_TYPE, INDEX_TYPE])
def test_both_forms_say_the_same(form: str) -> None:
    config = json.dumps({"layers": [{"blob": BLOBS[1], "parent": -1}]}).encode()

    (layer,) = decode_oci(_manifest(_described(BLOBS[1]), form=form), config).config.layers

    assert (layer.blob, layer.diff_id, layer.media_type, layer.size) == (
        BLOBS[1],
        BLOBS[5],
        "layer",
        7,
    )


@pytest.mark.parametrize(
    "blobs",
    [
        [_described(BLOBS[1])],
        [_described(BLOBS[1]), {"digest": BLOBS[2]}],
        [_described(BLOBS[1]), _described(BLOBS[2], **{_DIFF: "no digest"})],
    ],
    ids=["no descriptor", "no annotations", "no digest"],
)
def test_results_that_need_what_nothing_describes_are_left_out(blobs: list[Any]) -> None:
    layers = [{"blob": BLOBS[1], "parent": -1}, {"blob": BLOBS[2], "parent": 0}]
    records = [{"digest": f"key {n}", "layers": [{"layer": n}]} for n in range(2)]
    config = json.dumps({"layers": layers, "records": records}).encode()

    read = decode_oci(_manifest(*blobs), config).config

    assert [record.digest for record in read.records] == ["key 0"]
    assert read == prune(read, {BLOBS[1]})


def test_a_rule_that_an_importer_enforces_is_enforced() -> None:
    with pytest.raises(InvalidIndexError, match="layer 0: its parent is out of range"):
        decode_oci(
            _manifest(_described(BLOBS[1])),
            b'{"layers":[{"blob":"%b","parent":3}]}' % (BLOBS[1].encode()),
        )


def test_what_a_descriptor_says_beyond_what_an_index_knows_is_kept() -> None:
    known = _manifest(_described(BLOBS[1], toc="x") | {"urls": ["u"]})
    content = b'{"layers":[{"blob":"%b","parent":-1}]}' % BLOBS[1].encode()
    config = decode_oci(known, content).config

    written = json.loads(encode_oci(config, described=known.descriptors).manifest)

    assert written["layers"][0]["annotations"]["toc"] == "x"
    assert written["layers"][0]["urls"] == ["u"]


@pytest.mark.parametrize("sink", Sink)
@given(config=any_index())
def test_the_sink_that_is_asked_for_is_written(sink: Sink, config: CacheConfig) -> None:
    encoded = encode_oci(merge([config]), sink=sink)
    manifest = read_manifest(encoded.manifest)
    assert manifest

    assert decode_oci(manifest, encoded.config).sink == (sink if config.records else None)


def test_what_a_manifest_claims_neither_overflows_nor_becomes_a_header() -> None:
    claimed = _manifest(*({**_described(blob), "size": 2**63 - 1} for blob in BLOBS[1:4]))

    assert sum(size for _, size in claimed.sizes()) < 2**45
    for media_type in ("\u00fc", "a\r\nX: y", "text/html"):
        head = {"mediaType": CONFIG_TYPE, "digest": BLOBS[0], "size": 2}
        odd = read_manifest(json.dumps({"mediaType": media_type, "config": head}).encode())
        assert odd
        assert odd.media_type == MANIFEST_TYPE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"manifests":[{"digest":1}]}',
        b'{"manifests":"x"}',
        b'{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[]}',
        b'{"config":{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"../x"}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_whatever_else_is_no_manifest_of_a_cache(content: bytes) -> None:
    assert read_manifest(content) is None


@pytest.mark.parametrize(
    "more",
    [
        {"subject": {"mediaType": MANIFEST_TYPE, "digest": BLOBS[1], "size": 1}},
        {"manifests": [{"mediaType": MANIFEST_TYPE, "digest": BLOBS[1], "size": 1}]},
        {"layers": [{"mediaType": INDEX_TYPE, "digest": BLOBS[1], "size": 1}]},
        {"Layers": [_described(BLOBS[1])]},
        {"layers": [{"Digest": BLOBS[1]}]},
        {"config": {"mediaType": CONFIG_TYPE, "digest": BLOBS[0], "DIGEST": BLOBS[1]}},
    ],
)
def test_a_manifest_that_may_lead_to_more_than_a_cache_is_none(more: dict[str, Any]) -> None:
    head = {"mediaType": CONFIG_TYPE, "digest": BLOBS[0], "size": 2}

    assert read_manifest(json.dumps({"config": head, "layers": []}).encode())
    assert read_manifest(json.dumps({"config": head, "layers": []} | more).encode()) is None


def test_a_manifest_says_sizes_of_what_has_a_digest_and_a_size() -> None:
    sizes = {BLOBS[0]: 7, BLOBS[1]: 0, "not a digest": 7}
    described = [_described(blob) | {"size": size} for blob, size in sizes.items()]

    assert list(_manifest(*described).sizes()) == [(BLOBS[0], 7)]
