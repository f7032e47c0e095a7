"""An export in progress. Pure."""

from dataclasses import dataclass
from datetime import datetime

from maintainer.cacheconfig import Ref


@dataclass(frozen=True, slots=True, order=True)
class Export:
    """An export that seems to be in progress."""

    since: datetime
    """When it uploaded the first blob that no index references."""
    ref: Ref

    def __str__(self) -> str:
        since = f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"an export seems to be in progress in {self.ref} since {since}"
