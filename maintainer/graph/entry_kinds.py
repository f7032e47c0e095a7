"""The kinds of entries, as the column `kind` of the table `entry` spells them."""

from maintainer.cacheconfig import (
    BlobKey,
    Digest,
    IndexKey,
    Key,
    SignatureKey,
    UploadKey,
    parse_key,
)


def kind_of(key: Key) -> tuple[str, str | None]:
    """Return the kind of an entry, and the digest of a blob or of what is signed."""
    if isinstance(key, BlobKey):
        return "blob", key.digest
    if isinstance(key, SignatureKey):
        return "signature", key.digest
    if isinstance(key, UploadKey):
        return "upload", None
    return ("index" if isinstance(key, IndexKey) else "foreign"), None


def read_key(kind: str, digest: str, key: str) -> Key:
    """Return the key of an entry, by what the table says of it."""
    if kind == "blob":
        return BlobKey(Digest(digest))
    if kind == "signature":
        return SignatureKey(Digest(digest))
    if kind == "upload":
        return UploadKey(key.removeprefix(str(UploadKey(""))))
    return parse_key(key) if kind == "index" else None
