"""Names to which builds of several images, or branches, export: each replaces the others. Pure."""

from collections.abc import Iterable, Sequence

from maintainer.cacheconfig import Digest

MAX_EXPORTS = 8
"""How many exports of a name are compared: the last ones."""
_SKETCHED = 48
_LENGTH = 12
_CLOSER = 0.2
_RETURNS = 2

Sketch = tuple[str, ...]
"""The beginnings of the first layers of an export by digest: a sample, as digests are random."""


def sketch(layers: Iterable[Digest]) -> Sketch:
    """Return what is remembered of an export with these layers."""
    digests = sorted(layer.rpartition(":")[2] for layer in layers)
    return tuple(one[:_LENGTH] for one in digests[:_SKETCHED])


def is_shared(exports: Sequence[Sketch]) -> bool:
    """Whether the exports to a name, oldest first, often return to what an earlier one was like.

    An image that changes is closest to what it was last. If a change is reverted, it returns once.
    """
    returns = 0
    for number in range(2, len(exports)):
        *earlier, last = exports[:number]
        closest = max(_likeness(exports[number], one) for one in earlier)
        returns += closest >= _likeness(exports[number], last) + _CLOSER
    return returns >= _RETURNS


def _likeness(one: Sketch, other: Sketch) -> float:
    """Estimate the share of layers that two exports have in common: 0 to 1."""
    sample = sorted({*one, *other})[:_SKETCHED]
    return sum(layer in one and layer in other for layer in sample) / max(len(sample), 1)
