"""The content sent for a reserved key, in pieces."""

from dataclasses import dataclass, field

MAX_ENTRY_SIZE = 2 * 1024**3
"""Bytes of one upload, all pieces together. They are kept in memory."""
MAX_BLOCKS = 50_000
"""Azure's own limit for one blob."""


class UploadError(Exception):
    """A piece does not fit, or a listed one was never sent."""


@dataclass(slots=True)
class Upload:
    """A reserved key, and the content sent so far."""

    id: int
    ref: str
    key: str
    version: str
    content: bytes | None = None
    """The whole content, once its blocks are committed."""
    _blocks: dict[str, bytes] = field(default_factory=dict)
    _chunks: dict[int, bytes] = field(default_factory=dict)
    _held: int = 0
    """Bytes in blocks and chunks."""

    @property
    def begun(self) -> bool:
        """Whether anything was sent."""
        return self.content is not None or bool(self._blocks or self._chunks)

    def put(self, content: bytes) -> None:
        """Store the whole content at once. Raises UploadError if it is too large."""
        self._check(len(content))
        self.content = content

    def stage(self, block: str, content: bytes) -> None:
        """Store a block until a list contains it. Raises UploadError if there are too many."""
        if len(self._blocks) >= MAX_BLOCKS and block not in self._blocks:
            raise UploadError(f"more than {MAX_BLOCKS:,} blocks")
        self._hold(len(content) - len(self._blocks.get(block, b"")))
        self._blocks[block] = content

    def commit(self, blocks: list[str]) -> None:
        """Join blocks in this order. Raises UploadError if one was never sent."""
        if missing := set(blocks) - self._blocks.keys():
            raise UploadError(f"{len(missing)} blocks were never sent")
        self._check(sum(len(self._blocks[block]) for block in blocks))
        self.content = b"".join(self._blocks[block] for block in blocks)
        self._blocks.clear()
        self._held = 0

    def write_at(self, start: int, content: bytes) -> None:
        """Keep a chunk of version 1, which states its position."""
        self._hold(len(content) - len(self._chunks.get(start, b"")))
        self._chunks[start] = content

    def assemble(self) -> bytes | None:
        """Return the whole content; None if nothing was sent, or a part is missing."""
        if self.content is not None or not self._chunks:
            return self.content
        whole = bytearray()
        for start in sorted(self._chunks):
            if start != len(whole):
                return None
            whole += self._chunks[start]
        return bytes(whole)

    def _hold(self, more: int) -> None:
        self._check(self._held + more)
        self._held += more

    def _check(self, size: int) -> None:
        if size > MAX_ENTRY_SIZE:
            raise UploadError(f"more than {MAX_ENTRY_SIZE:,} bytes")
