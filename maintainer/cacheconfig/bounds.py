"""How large an index may be to be read: what is larger is neither read nor written."""

_BYTES_PER_BRACKET = 32
_FEW_BRACKETS = 1_000_000


def why_too_large(content: bytes, limit: int) -> str | None:
    """Return why an index is not read where `limit` bytes are, if so.

    What would take hundreds of times its size to read is nothing but brackets: what builders write
    has one to each fifty bytes, of which each costs some hundred.
    """
    if len(content) > limit:
        return f"has {len(content):,} bytes, more than the {limit:,} of max_index_size"
    most = max(limit // _BYTES_PER_BRACKET, _FEW_BRACKETS)
    if content.count(b"{") + content.count(b"[") > most:
        return f"holds more than {most:,} objects and lists"
    return None
