"""A name to which two images export is recognized by exports that return."""

import hashlib

import pytest

from maintainer.cacheconfig import Digest
from maintainer.model.shared_names import Sketch, is_shared, sketch


def _blob(name: str) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}")


def _export(image: str, commit: int, size: int = 1) -> Sketch:
    """Return an image: two blobs that all share, two of the image, and one of the commit."""
    names = ("os", "tools", f"{image}-packages", f"{image}-config", f"{image}-{commit}")
    return sketch(_blob(f"{name} {part}") for name in names for part in range(size))


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    ("images", "shared"),
    [
        ("", False),
        ("a", False),
        ("aaaaaaaa", False),
        ("aaab", False),
        ("aaabbbb", False),
        ("aabaaaa", False),  # reverted
        ("abab", True),
        ("aababb", True),
        ("abcabc", True),
        ("aaabaab", True),
    ],
)
def test_a_name_is_shared_if_its_exports_return_more_than_once(
    images: str, shared: bool, size: int
) -> None:
    exports = [_export(image, commit, size) for commit, image in enumerate(images)]

    assert is_shared(exports) == shared


def test_little_is_remembered_of_a_large_export() -> None:
    assert sum(map(len, _export("a", 1, 10_000))) < 1_000


def test_exports_without_a_blob_are_all_alike() -> None:
    assert not is_shared([()] * 8)
