"""Looks what builds do, before each deletion: here that costs next to nothing."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import anyio.lowlevel

from maintainer.cacheconfig import UploadKey
from maintainer.errors import StoreError
from maintainer.model.entry import KnownEntry
from maintainer.model.reason import BuildsUnknown, Exported, Reason, Uploaded, UploadInProgress
from maintainer.stores.local.files import Files, from_nanoseconds, said
from maintainer.stores.local.index import IndexFile
from maintainer.text import printable

_STALLED = timedelta(hours=1)
"""An upload that has got no byte for so long is not under way any more."""


class LookEachTime:
    """Looks whether a build exports. Once one does, no blob goes any more in this run.

    Between two uploads of a build there is nothing to see, and what it has found stored it names at
    the end only.
    """

    def __init__(
        self,
        files: Files,
        index: IndexFile,
        clock: Callable[[], datetime],
        exported_at: datetime,
    ) -> None:
        """Begin to look. `exported_at` is when `index.json` was written that was planned from."""
        self._files = files
        self._index = index
        self._clock = clock
        self._exported_at = exported_at
        self._reason: Reason | None = None

    def requests(self, entry: KnownEntry) -> int:
        """Return none: it takes a look."""
        del entry
        return 0

    async def why_not(self, entry: KnownEntry) -> Reason | None:
        """Return why a blob may not go, if so."""
        if isinstance(entry.parsed, UploadKey):
            return None  # Nobody needs it but its own build, which would have gone on with it.
        await anyio.lowlevel.checkpoint()
        self._reason = self._reason or self._look()
        return self._reason

    def _look(self) -> Reason | None:
        try:
            self._files.check_places()
            under_way = self._build_under_way()
            # Last, so that no time passes before the blob goes.
            changed = self._index.has_changed()
        except StoreError as error:
            return BuildsUnknown(str(error))
        return Exported() if changed else under_way

    def _build_under_way(self) -> Reason | None:
        """Return the sign of a build that may be about to name a blob that it found stored."""
        ingest = self._files.directory("ingest")
        if ingest is None:
            return None
        with said("ingest"), os.scandir(ingest) as found:
            for entry in found:
                if self._is_fresh(_last_written(entry, ingest)):
                    return UploadInProgress(f"ingest/{printable(entry.name)}")
        with said("ingest"):
            last = from_nanoseconds(os.fstat(ingest).st_mtime_ns)
        # It changes whenever an upload begins or ends, and index.json is written after the last.
        if last > self._exported_at and self._is_fresh(last):
            return Uploaded()
        return None

    def _is_fresh(self, moment: datetime) -> bool:
        return self._clock() - moment < _STALLED


def _last_written(entry: os.DirEntry[str], ingest: int) -> datetime:
    times = []
    # It may be renamed into its place while we look.
    with suppress(OSError):
        times.append(entry.stat(follow_symlinks=False).st_mtime_ns)
        if entry.is_dir(follow_symlinks=False):
            grows = os.stat(f"{entry.name}/data", dir_fd=ingest, follow_symlinks=False)
            times.append(grows.st_mtime_ns)
    return from_nanoseconds(max(times, default=0))
