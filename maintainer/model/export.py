"""An export in progress. Pure."""

from dataclasses import dataclass
from datetime import datetime

from maintainer.cacheconfig import Ref
from maintainer.model.reason import ExportInProgress


@dataclass(frozen=True, slots=True, order=True)
class Export:
    """An export that seems to be in progress."""

    since: datetime
    """When it uploaded the first blob that no index references."""
    ref: Ref

    @property
    def reason(self) -> ExportInProgress:
        """The reason why no blob is deleted during the export."""
        return ExportInProgress(self.ref, self.since)
