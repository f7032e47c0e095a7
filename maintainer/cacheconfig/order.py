"""Dependency order."""

from collections.abc import Collection, Sequence


def dependency_order(sources: Sequence[Collection[int]]) -> list[int] | None:
    """Order nodes so that each comes after its sources; None if they loop.

    `sources[n]` are the nodes that node n needs, each at most once. Kahn's algorithm: linear time,
    no recursion, and the order depends on the positions alone.
    """
    users: list[list[int]] = [[] for _ in sources]
    waiting = [len(needed) for needed in sources]
    for node, needed in enumerate(sources):
        for source in needed:
            users[source].append(node)
    order = [node for node, count in enumerate(waiting) if count == 0]
    for node in order:
        for user in users[node]:
            waiting[user] -= 1
            if waiting[user] == 0:
                order.append(user)
    return order if len(order) == len(sources) else None
