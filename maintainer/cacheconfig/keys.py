"""The cache keys that BuildKit's `type=gha` exporter writes.

Source: `cache/remotecache/gha` in moby/buildkit. Anyone who can open a pull request can write
any key, so a key is ours only if it follows the grammar to the letter.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import NewType

import msgspec

Digest = NewType("Digest", str)
"""A content digest, `sha256:` and 64 hexadecimal digits for everything that BuildKit writes."""
Ref = NewType("Ref", str)
"""The git ref whose token wrote an entry, e.g. `refs/heads/main`."""
Scope = NewType("Scope", str)
"""BuildKit's name for one cache (`scope=`); any characters, chosen by whoever runs a build."""
Generation = NewType("Generation", int)
"""The number behind `#` in an index key; the highest is the newest."""

NO_REF = Ref("-")
"""The ref of whatever is in a store without refs. It is not a git ref: those begin with `refs/`."""

MAX_KEY_LENGTH = 512
"""Characters; GitHub refuses longer keys."""

ENTRY_VERSION = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2"
"""sha256("|go-actionscache-1.0"): the version of every entry that BuildKit writes."""

MAX_GENERATION = 10**18 - 1
"""The highest number that a key may have; 64 bits hold it."""

DIGEST_FORM = "sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
"""A regular expression: the algorithms that runs know, each with its number of digits."""
_DIGEST = re.compile(DIGEST_FORM, re.ASCII)
BLOB_PREFIX = "buildkit-blob-1-"
"""The beginning of the keys of layers and signatures."""
_BLOB = re.compile(rf"{BLOB_PREFIX}({DIGEST_FORM})(-sig)?", re.ASCII)
_INDEX = re.compile(
    r"index-(?P<scope>.*)-1-(?P<ref_hash>[0-9a-f]{8})(?P<signed>-sig)?#(?P<generation>[1-9][0-9]{0,17})",
    re.ASCII | re.DOTALL,
)

INDEX_PREFIX = "index-"
"""The beginning of the keys of indexes."""
_BLOB_OF_ANY_VERSION = re.compile(r"buildkit-blob-\d", re.ASCII | re.IGNORECASE)
_INDEX_OF_ANY_VERSION = re.compile(
    rf"{INDEX_PREFIX}.*-\d+-[0-9a-f]{{8}}(-sig)?#\d", re.ASCII | re.DOTALL | re.IGNORECASE
)


def is_digest(text: str) -> bool:
    """Return whether `text` is a digest of a registered algorithm, with all its digits."""
    return _DIGEST.fullmatch(text) is not None


class BlobKey(msgspec.Struct, frozen=True, order=True, gc=False, array_like=True, tag="blob"):
    """The key of one compressed layer."""

    digest: Digest

    def __str__(self) -> str:
        return f"{BLOB_PREFIX}{self.digest}"


class SignatureKey(
    msgspec.Struct, frozen=True, order=True, gc=False, array_like=True, tag="signature"
):
    """The key of the signature bundle of one signed index."""

    digest: Digest
    """Of the bytes of the index that is signed."""

    def __str__(self) -> str:
        return f"{BLOB_PREFIX}{self.digest}-sig"


class IndexKey(msgspec.Struct, frozen=True, order=True, gc=False, array_like=True, tag="index"):
    """The key of one generation of the index of a scope, as written from one ref."""

    scope: Scope
    ref_hash: str
    generation: Generation
    signed: bool = False
    is_named: bool = False
    """Whether it is a tag of a directory: identified by its name, with one manifest at a time."""

    @property
    def prefix(self) -> str:
        """What all generations of this index start with; the exporter looks for it too."""
        return f"index-{self.scope}-1-{self.ref_hash}{'-sig' if self.signed else ''}#"

    def __str__(self) -> str:
        return self.scope if self.is_named else f"{self.prefix}{self.generation}"


@dataclass(frozen=True, slots=True, order=True)
class IndexId:
    """One index with all its generations: what a scope is in one ref, or a tag in a directory."""

    ref: Ref
    scope: Scope
    signed: bool = False

    def __str__(self) -> str:
        return self.scope if self.is_named else self.prefix.removesuffix("#")

    @property
    def is_named(self) -> bool:
        """Whether it is known by a name that each build overwrites, not by a numbered key."""
        return self.ref == NO_REF

    @property
    def prefix(self) -> str:
        """What the keys of all its generations start with, up to the number."""
        return self.key(0).prefix

    def key(self, generation: int) -> IndexKey:
        """Return the key of one generation."""
        ref_hash, number = hash_ref(self.ref), Generation(generation)
        return IndexKey(self.scope, ref_hash, number, self.signed, self.is_named)


class UploadKey(msgspec.Struct, frozen=True, order=True, gc=False, array_like=True, tag="upload"):
    """An unfinished upload of a build to a directory."""

    name: str
    """Of its folder."""

    def __str__(self) -> str:
        return f"ingest/{self.name}"


Key = BlobKey | SignatureKey | IndexKey | UploadKey | None
"""A key of one of our kinds; None for keys of other tools."""


def content_digest(content: bytes) -> Digest:
    """Return the digest of some content."""
    return Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")


NO_CONTENT = content_digest(b"")
"""The digest of a blob that is empty, and ought to be."""


def matches(digest: Digest, content: bytes) -> bool:
    """Whether content matches its digest."""
    algorithm, _, digits = digest.partition(":")
    return hashlib.new(algorithm, content).hexdigest() == digits


def hash_ref(ref: Ref) -> str:
    """Return the eight hexadecimal digits that stand for `ref` in an index key."""
    return hashlib.sha256(ref.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def may_be_buildkits(key: str) -> bool:
    """Whether some version of BuildKit may write this key, which is perhaps not one of ours."""
    return _BLOB_OF_ANY_VERSION.match(key) is not None or may_be_index(key)


def may_be_index(key: str) -> bool:
    """Whether builders of some version may read an index by this key, which may not be ours."""
    return _INDEX_OF_ANY_VERSION.match(key) is not None


def parse_key(key: str) -> BlobKey | SignatureKey | IndexKey | None:
    """Parse a key of one of our two kinds; None for every other key: it belongs to another tool."""
    if len(key) > MAX_KEY_LENGTH:
        return None
    if match := _BLOB.fullmatch(key):
        digest = Digest(match[1])
        return SignatureKey(digest) if match[2] else BlobKey(digest)
    if match := _INDEX.fullmatch(key):
        return IndexKey(
            scope=Scope(match["scope"]),
            ref_hash=match["ref_hash"],
            generation=Generation(int(match["generation"])),
            signed=match["signed"] is not None,
        )
    return None
