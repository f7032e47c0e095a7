"""Print how many results builds find under a quota: `python -m benchmarks.quota`.

Percentages are shares of what a cache without a quota returns. A few minutes.
"""

from collections.abc import Callable, Mapping

from benchmarks.quota import history, orders
from maintainer.model.history import History
from maintainer.simulation import Order, github

QUOTAS = (10, 13, 15, 20, 25, 30, 40, 50, 60, 70)
"""Percent of all that is written."""

ORDERS: Mapping[str, Callable[[], Order]] = {
    "GitHub's": lambda: github,
    "latest": lambda: orders.latest,
    "day, exclusive bytes": lambda: orders.day_and_exclusive_bytes,
    "GDSF": orders.GreedyDualSizeFrequency,
    "uses/age/bytes": lambda: orders.uses_by_age_and_bytes,
    "**chosen**": lambda: orders.room,
}


def main() -> None:
    """Print the tables."""
    for name, past in (("Recorded", history.recorded()), ("Generated", history.generated())):
        size = f"{past.written / 10**6:,.1f} MB"
        print(f"{name}: {len(past.builds)} builds, {past.findable:,} results to find, {size}\n")
        _print_row("quota", *ORDERS, "bound", "chosen/bound", "one run a day")
        _print_row("--:", *["--:"] * (len(ORDERS) + 3))
        for percent in QUOTAS:
            _print_row(f"{percent} %", *_measure(past, past.written * percent // 100))
        print()


def _measure(past: History, quota: int) -> list[str]:
    from benchmarks.quota.bound import solve  # noqa: PLC0415 - SciPy takes a second

    found = {name: orders.count_found(past, quota, make()) for name, make in ORDERS.items()}
    bound = solve(past, quota)
    daily = orders.count_found(past, quota, github, orders.room_with_15_percent_free)
    shares = [_percent(count / past.findable) for count in (*found.values(), bound)]
    return [*shares, f"{found['**chosen**'] / bound:.2f}", _percent(daily / past.findable)]


def _percent(share: float) -> str:
    return f"{share:.1%}".removesuffix("%")


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
