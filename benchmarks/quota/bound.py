"""The offline bound: no cache can return more, even if it knew the future.

A linear program, solved by HiGHS. `x` says of a key and two neighbouring builds that need it how
much of it is found by the second one; `z` says of a blob how much of it is kept between two
neighbouring builds that need it. What is found needs all its blobs in between, and what is kept
between two builds must fit into the quota. That parts of blobs may be kept makes it a bound and not
an answer; a blob that is larger than the quota cannot be kept at all.
"""

from bisect import bisect_left
from collections import defaultdict
from itertools import pairwise

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from maintainer.cacheconfig import Digest
from maintainer.model.history import History


def solve(history: History, quota: int) -> float:
    """Return how many results can be found at most."""
    program = _Program(history)
    limits = np.array([0] * program.rows + [quota] * (len(history.builds) - 1))
    most = [1.0] * program.hits
    most += [float(history.sizes[blob] <= quota) for blob, _ in program.gaps]
    gain = np.zeros(len(most))
    gain[: program.hits] = -1
    result = linprog(
        gain,
        A_ub=program.matrix(len(most)),
        b_ub=limits,
        bounds=np.column_stack([np.zeros(len(most)), most]),
        method="highs",
    )
    return -float(result.fun)


class _Program:
    """The rows of the linear program, without the quota."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._needed = _needed(history)
        self.gaps: dict[tuple[Digest, int], int] = {}
        """The variable `z` of each blob, by the build after which it is kept."""
        self._ends: list[int] = []
        hits = list(_hits(history))
        self.hits, self.rows = len(hits), 0
        for blob, turns in self._needed.items():
            for begin, end in pairwise(turns):
                self.gaps[blob, begin] = self.hits + len(self.gaps)
                self._ends.append(end)
        self._cells: list[tuple[int, int, int]] = []
        for variable, hit in enumerate(hits):
            self._add_hit(variable, *hit)
        for (blob, begin), variable in self.gaps.items():
            for turn in range(begin, self._ends[variable - self.hits]):
                self._cells.append((self.rows + turn, variable, history.sizes[blob]))

    def matrix(self, columns: int) -> coo_array:
        """Return all rows: first what hits need, then what is kept after each build."""
        rows, variables, values = zip(*self._cells, strict=True)
        shape = self.rows + len(self._history.builds) - 1, columns
        return coo_array((values, (rows, variables)), shape=shape)

    def _add_hit(self, variable: int, key: int, begin: int, end: int) -> None:
        for blob in self._history.stacks[key]:
            turns = self._needed[blob]
            for turn in turns[bisect_left(turns, begin) : bisect_left(turns, end)]:
                self._cells += [(self.rows, variable, 1), (self.rows, self.gaps[blob, turn], -1)]
                self.rows += 1


def _needed(history: History) -> dict[Digest, list[int]]:
    """Return the builds that need each blob."""
    needed: defaultdict[Digest, list[int]] = defaultdict(list)
    for turn, build in enumerate(history.builds):
        for blob in {blob for key in build.keys for blob in history.stacks[key]}:
            needed[blob].append(turn)
    return needed


def _hits(history: History) -> list[tuple[int, int, int]]:
    """Return each key that a build may find, and the build that needed it before, and this one."""
    hits, last = [], dict[int, int]()
    for turn, build in enumerate(history.builds):
        for key in build.keys:
            if key in last:
                hits.append((key, last[key], turn))
            last[key] = turn
    return hits
