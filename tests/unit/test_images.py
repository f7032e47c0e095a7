"""Images and their indexes, as far as runs read them: what leads to a manifest protects it."""

import pytest

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.images import (
    Child,
    children_of,
    config_of,
    digests_in,
    holds_cache,
    images_of,
)
from maintainer.cacheconfig.oci import INDEX_TYPE, MANIFEST_TYPE

_ONE = f"sha256:{'a' * 64}"
_OTHER = f"sha256:{'b' * 64}"
_NOT_JSON = (b"", b"[" * 10_000, b'{"config": 1}', b"\xff")


@pytest.mark.parametrize("digest", [_ONE, f"sha384:{'1' * 96}", f"sha512:{'2' * 128}"])
def test_a_digest_is_found_however_it_is_spelled(digest: str) -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in digest)

    for spelled in (digest, digest.replace("a", r"\u0061"), escaped):
        assert digests_in(f'{{"x": [{{"y": "{spelled}"}}]}}'.encode()) == {digest}
    assert not digests_in(b'{"x": "\\ud800", "y": "sha256\\u003a00"}')


def test_an_index_lists_other_indexes_and_images() -> None:
    content = (
        f'{{"manifests": [{{"mediaType": "{INDEX_TYPE}", "digest": "{_ONE}"}},'
        f'{{"mediaType": "{MANIFEST_TYPE}", "digest": "{_OTHER}"}},'
        f'{{"mediaType": "{MANIFEST_TYPE}", "digest": "latest"}}]}}'
    ).encode()

    assert children_of(content) == [Child(Digest(_ONE), is_index=True)]
    assert images_of(content) == [_OTHER]
    assert config_of(content) is None
    assert config_of(b'{"config": {"digest": "latest"}}') is None
    assert config_of(f'{{"config": {{"digest": "{_ONE}"}}}}'.encode()) == _ONE


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("application/vnd.docker.distribution.manifest.list.v2+json", True),
        ("", True),
        ("application/octet-stream", False),
        ("application/vnd.oci.artifact.manifest.v1+json", False),
        ("application/vnd.oci.image.layer.v1.tar+zstd", None),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", None),
        ("application/vnd.oci.image.config.v1+json", None),
        ("application/vnd.docker.container.image.v1+json", None),
        ("application/vnd.buildkit.cacheconfig.v0", None),
    ],
)
def test_whatever_may_list_more_is_followed_and_no_layer_or_config_of_a_cache(
    kind: str, found: bool | None
) -> None:
    content = f'{{"manifests": [{{"mediaType": "{kind}", "digest": "{_ONE}"}}]}}'.encode()

    assert [one.is_index for one in children_of(content)] == ([] if found is None else [found])
    assert images_of(content) == []


@pytest.mark.parametrize("content", _NOT_JSON)
def test_what_is_no_image_leads_nowhere(content: bytes) -> None:
    assert children_of(content) == []
    assert config_of(content) is None
    assert not holds_cache(content)


def test_an_inline_cache_is_a_field_of_the_config() -> None:
    assert holds_cache(b'{"moby.buildkit.cache.v0": "W10="}')
    assert not holds_cache(b'{"moby.buildkit.cache.v0": null}')
    assert not holds_cache(b'{"architecture": "amd64"}')
