"""Entries that are too many to hold at once: read from the graph, marked and planned in parts."""

from collections.abc import Iterator
from dataclasses import replace

from maintainer.graph.database import Database
from maintainer.graph.recall import load_entries
from maintainer.mark import Marker
from maintainer.model.decision import Plan, Rules
from maintainer.model.marks import Marks
from maintainer.plan import Planner

SIZE = 5_000
"""Entries of one part: some megabytes."""


class Parts:
    """The parts of a plan. Each time that they are asked for, they are the same."""

    def __init__(self, database: Database, target_id: int, marks: Marks, rules: Rules) -> None:
        self._database = database
        self._target_id = target_id
        self._marks = marks
        self._marker = Marker(marks.snapshot, marks.indexes)
        self._planner = Planner(marks, rules)
        self._planner.plan(())

    def __iter__(self) -> Iterator[tuple[Marks, Plan]]:
        after = -1
        while True:
            with self._database.reading() as connection:
                entries = load_entries(
                    connection,
                    self._target_id,
                    self._marks.snapshot.now,
                    after=after,
                    limit=SIZE,
                )
            if not entries:
                return
            marks = tuple(map(self._marker.mark, entries))
            plan = replace(self._planner.plan(marks), writes=(), settled=())
            yield replace(self._marks, marks=marks), plan
            after = entries[-1].store_id
