"""The demo, from a fresh clone to its end: mostly installation."""

import os
from collections.abc import Iterator

from benchmarks.processes import ROOT, empty_folder, expect, run
from benchmarks.table import Goal, Line


def lines() -> Iterator[Line]:
    """Measure it once, on what is committed; it needs the package index."""
    # What `make` and an active environment have set does not belong to a fresh clone.
    variables = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    with empty_folder() as folder:
        run(("git", "clone", "--quiet", str(ROOT), "clone"), folder)
        usage = run(("make", "demo"), folder / "clone", variables | {"PYTHONPATH": ""})
    expect("entries" in usage.output, f"the demo printed {usage.output!r}")
    yield Line("`make demo` in a fresh clone, wall", "s", usage.wall, goal=Goal(most=8))
