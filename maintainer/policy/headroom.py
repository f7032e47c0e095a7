"""What arrives until the next run should fit, so that the store need not evict. As much is expected
as was enough nine times out of ten.
"""

from collections.abc import Sequence

NAME = "headroom"

INTERVALS = 30
"""So many of the last intervals between two runs count."""
_FEWEST = 10
"""Of fewer intervals, the largest one would decide: a cache that was filled on its first day must
not lose results for that.
"""


def forecast(arrived: Sequence[int]) -> int | None:
    """Return how many bytes are expected until the next run, by what arrived between runs before;
    None if that is not known.
    """
    last = sorted(arrived[-INTERVALS:])
    if len(last) < _FEWEST:
        return None
    return last[-(-len(last) * 9 // 10) - 1]
