"""Where a cache in an object storage keeps what."""

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase

from maintainer.cacheconfig import NO_REF, Digest, IndexId, Scope
from maintainer.cacheconfig.keys import is_digest
from maintainer.sanitize import show_nul

_BRACKET = re.compile(r"\[")
"""It has no meaning in names of indexes, other than in those of files."""


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
    names: tuple[str, ...] = ()
    """The names of the indexes to maintain, with `*` and `?`; all if empty. The others keep their
    blobs, and stay as they are.
    """

    def naming(self, name: str) -> "Layout":
        """Return the same, but an index with this name is maintained, too."""
        return replace(self, names=(*self.names, name)) if self.names and name else self

    def maintains(self, key: str) -> bool:
        """Whether the index with this key is one to maintain."""
        if not self.names:
            return True
        within = (one for one in self.manifests if key.startswith(one))
        name = key.removeprefix(max(within, key=len, default=""))
        return any(fnmatchcase(name, _BRACKET.sub("[[]", one)) for one in self.names)

    def index_of(self, key: str) -> IndexId:
        """Return the index with this key: under the first prefix, only the rest is its name."""
        return IndexId(NO_REF, Scope(show_nul(key.removeprefix(self.manifests[0]))))

    def keys_of(self, index: IndexId) -> tuple[str, ...]:
        """Return where an index may be: `index_of` does not tell all of its keys apart."""
        name = str(index.scope)
        others = (name,) if name.startswith(self.manifests[1:]) else ()
        return (self.manifests[0] + name, *others)

    def digest_of(self, key: str) -> Digest | None:
        """Return the digest of the blob with this key; None if it is something else."""
        digest = Digest(key.removeprefix(self.blobs))
        return digest if key.startswith(self.blobs) and is_digest(digest) else None
