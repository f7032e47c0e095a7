"""A first run and a second one that has nothing to do, each with its floor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.processes import Usage, median_user
from benchmarks.table import Goal, Line


@dataclass(frozen=True)
class TwoRuns:
    """What two runs took, and their floors; the second one has to start as well."""

    first: Usage
    first_floor: Usage
    second: Usage
    second_floor: Usage
    start_up: Usage


def compare(
    measured: Sequence[TwoRuns], first: str, second: str, *, first_times: float, second_times: float
) -> Iterator[Line]:
    """Return a line for each run. Its goal is so many times its floor."""
    yield Line(
        first,
        "s",
        median_user([each.first for each in measured]),
        median_user([each.first_floor for each in measured]),
        Goal(times=first_times),
    )
    start_up = median_user([each.start_up for each in measured])
    yield Line(
        f"{second} + start-up ({start_up:.2f} s)",
        "s",
        median_user([each.second for each in measured]),
        median_user([each.second_floor for each in measured]) + start_up,
        Goal(times=second_times),
    )
