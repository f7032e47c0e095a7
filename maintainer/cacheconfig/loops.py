"""Leaving out the links that would close a loop.

An importer refuses an index whose links loop. Uniting records can close one: if a record turns out
to be the same as one that it builds on. No link of a loop can be kept whole, so those stay that
lead from a record which is reached sooner to one which is reached later. That choice depends on
the graph alone, not on the order in which it was put together, and leaves each input a link.
"""

from collections.abc import Sequence

from maintainer.cacheconfig.order import dependency_order

_Inputs = Sequence[Sequence[set[tuple[int, str]]]]
"""For each record, for each input, its links: source and selector."""


def leave_out_loops(inputs: _Inputs) -> _Inputs:
    """Return `inputs` without the links inside a loop that do not lead forwards. Linear time.

    Every record must be reachable: from records without inputs, some way to satisfy each input.
    """
    sources = [{source for edges in record for source, _ in edges} for record in inputs]
    if dependency_order(sources) is not None:
        return inputs
    steps = _steps(inputs)
    loop = _loops(sources)
    return [
        [
            {(s, sel) for s, sel in edges if loop[s] != loop[record] or steps[s] < steps[record]}
            for edges in record_inputs
        ]
        for record, record_inputs in enumerate(inputs)
    ]


def _steps(inputs: _Inputs) -> list[int]:
    """Count for each record the fewest steps in which all its inputs can be satisfied."""
    users: list[list[tuple[int, int]]] = [[] for _ in inputs]
    for record, record_inputs in enumerate(inputs):
        for position, edges in enumerate(record_inputs):
            for source, _ in edges:
                users[source].append((record, position))
    steps = [0] * len(inputs)
    unsatisfied = [set(range(len(record_inputs))) for record_inputs in inputs]
    reached = [record for record, record_inputs in enumerate(inputs) if not record_inputs]
    for record in reached:
        for user, position in users[record]:
            if position in unsatisfied[user]:
                unsatisfied[user].discard(position)
                if not unsatisfied[user]:
                    steps[user] = steps[record] + 1
                    reached.append(user)
    return steps


def _loops(sources: Sequence[set[int]]) -> list[int]:
    """Return each record the number of its strongly connected component (Tarjan 1972)."""
    unvisited = -1
    entered = [unvisited] * len(sources)
    lowest = [0] * len(sources)
    component = [unvisited] * len(sources)
    path: list[int] = []
    visits = 0
    for root in range(len(sources)):
        if entered[root] != unvisited:
            continue
        work = [(root, iter(sorted(sources[root])))]
        entered[root] = lowest[root] = visits
        visits += 1
        path.append(root)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[node])
                if lowest[node] == entered[node]:
                    while component[node] == unvisited:
                        component[path.pop()] = node
            elif entered[following] == unvisited:
                entered[following] = lowest[following] = visits
                visits += 1
                path.append(following)
                work.append((following, iter(sorted(sources[following]))))
            elif component[following] == unvisited:
                lowest[node] = min(lowest[node], entered[following])
    return component
