"""Where a cache in an object storage keeps what. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from maintainer.cacheconfig import NO_REF, Digest, IndexId, Scope
from maintainer.cacheconfig.keys import is_digest
from maintainer.sanitize import show_nul


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a cache keeps what, and which of its names are maintained."""

    name: str
    """The name of the store."""
    prefix: str
    """The beginning of all its keys."""
    blobs: str
    """The beginning of the keys of blobs, before the digest."""
    manifests: tuple[str, ...]
    """The beginnings of the keys of all indexes that reference these blobs."""
    least_grace: timedelta = timedelta(0)
    """How long a build may rely on a blob that was written before."""
    noun: str = "bucket"
    """What people call the storage."""
    touches: bool = True
    """Whether an export writes old blobs anew that it finds; otherwise their age shows no use."""

    def index_of(self, key: str) -> IndexId:
        """Return the index with this key: under the first prefix, only the rest is its name."""
        return IndexId(NO_REF, Scope(show_nul(key.removeprefix(self.manifests[0]))))

    def digest_of(self, key: str) -> Digest | None:
        """Return the digest of the blob with this key; None if it is something else."""
        digest = Digest(key.removeprefix(self.blobs))
        return digest if key.startswith(self.blobs) and is_digest(digest) else None
