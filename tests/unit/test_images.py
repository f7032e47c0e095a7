"""Images and their indexes, as far as runs read them: what leads to a manifest protects it."""

import pytest

from maintainer.cacheconfig.images import children_of, config_of, digests_in, holds_cache
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

    assert children_of(content) == [_ONE]
    assert children_of(content, images=True) == [_OTHER]
    assert config_of(content) is None
    assert config_of(b'{"config": {"digest": "latest"}}') is None
    assert config_of(f'{{"config": {{"digest": "{_ONE}"}}}}'.encode()) == _ONE


@pytest.mark.parametrize("content", _NOT_JSON)
def test_what_is_no_image_leads_nowhere(content: bytes) -> None:
    assert children_of(content) == []
    assert config_of(content) is None
    assert not holds_cache(content)


def test_an_inline_cache_is_a_field_of_the_config() -> None:
    assert holds_cache(b'{"moby.buildkit.cache.v0": "W10="}')
    assert not holds_cache(b'{"moby.buildkit.cache.v0": null}')
    assert not holds_cache(b'{"architecture": "amd64"}')
