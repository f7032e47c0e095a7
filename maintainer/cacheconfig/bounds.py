"""The size limits of an index: larger ones are neither read nor written."""

_BYTES_PER_BRACKET = 32
_FEW_BRACKETS = 1_000_000


def why_too_large(content: bytes, limit: int) -> str | None:
    """Return why an index is not read where `limit` bytes are, if so.

    Text that is nothing but brackets would take hundreds of times its size to read; what builders
    write has one bracket per fifty bytes, and each costs about a hundred bytes.
    """
    if len(content) > limit:
        return f"has {len(content):,} bytes, more than the {limit:,} of max_index_size"
    most = max(limit // _BYTES_PER_BRACKET, _FEW_BRACKETS)
    if content.count(b"{") + content.count(b"[") > most:
        return f"holds more than {most:,} objects and lists"
    return None
