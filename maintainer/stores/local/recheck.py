"""Checks before each deletion what builds are doing, which is cheap here."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import anyio.lowlevel

from maintainer.cacheconfig import UploadKey
from maintainer.errors import StoreError
from maintainer.model.entry import FAR_AHEAD, KnownEntry
from maintainer.model.reason import BuildsUnknown, Exported, Reason, Uploaded, UploadInProgress
from maintainer.sanitize import printable
from maintainer.stores.local.disk import translate_errors
from maintainer.stores.local.files import Files, from_nanoseconds
from maintainer.stores.local.index import IndexFile

_STALLED = timedelta(hours=1)
"""An upload that has received no bytes for this long is no longer in progress."""


class RecheckEachTime:
    """Checks whether a build exports. Once one does, this run deletes no more blobs.

    Between two uploads a build is invisible, and it references the blobs that it found stored only
    at the end.
    """

    def __init__(
        self,
        files: Files,
        index: IndexFile,
        clock: Callable[[], datetime],
        exported_at: datetime,
    ) -> None:
        """Begin. `exported_at` is when the `index.json` of the plan was written."""
        self._files = files
        self._index = index
        self._clock = clock
        self._exported_at = exported_at
        self._reason: Reason | None = None

    def requests(self, entry: KnownEntry) -> int:
        """Return none: checks are not requests."""
        del entry
        return 0

    async def veto(self, entry: KnownEntry) -> Reason | None:
        """Return why a blob must not be deleted, if so."""
        if isinstance(entry.parsed, UploadKey):
            return None  # Only its own build needs it, and that would have continued it.
        await anyio.lowlevel.checkpoint()
        self._reason = self._reason or self._find_reason()
        return self._reason

    def _find_reason(self) -> Reason | None:
        try:
            self._files.check_places()
            under_way = self._build_under_way()
            # The last check, right before the blob is deleted.
            changed = self._index.has_changed()
        except StoreError as error:
            return BuildsUnknown(str(error))
        return Exported() if changed else under_way

    def _build_under_way(self) -> Reason | None:
        """Return the sign of a build that may be about to reference a stored blob."""
        ingest = self._files.directory("ingest")
        if ingest is None:
            return None
        with translate_errors("ingest"), os.scandir(ingest) as found:
            for entry in found:
                if self._is_fresh(_last_written(entry, ingest)):
                    return UploadInProgress(f"ingest/{printable(entry.name)}")
        with translate_errors("ingest"):
            last = from_nanoseconds(os.fstat(ingest).st_mtime_ns)
        # It changes whenever an upload begins or ends, and index.json is written after the last.
        if last > self._exported_at and self._is_fresh(last):
            return Uploaded()
        return None

    def _is_fresh(self, moment: datetime) -> bool:
        # A time that is far ahead is wrong: it would stop all deletions until then.
        return -FAR_AHEAD < self._clock() - moment < _STALLED


def _last_written(entry: os.DirEntry[str], ingest: int) -> datetime:
    times = []
    # It may be renamed into its place during this check.
    with suppress(OSError):
        times.append(entry.stat(follow_symlinks=False).st_mtime_ns)
        if entry.is_dir(follow_symlinks=False):
            grows = os.stat(f"{entry.name}/data", dir_fd=ingest, follow_symlinks=False)
            times.append(grows.st_mtime_ns)
    return from_nanoseconds(max(times, default=0))
