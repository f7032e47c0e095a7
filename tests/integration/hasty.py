"""A worker in a process of its own, with less patience than it has: leases of seconds."""

from datetime import timedelta

from tests.processes import Command, Forked, become, processes

LEASE = timedelta(seconds=4)


def start_hastily(command: Command) -> Forked:
    """Start a command that waits for nothing longer than the lease."""
    process = processes().Process(target=_run, args=(command,))
    process.start()
    return Forked(process)


def _run(command: Command) -> None:
    from maintainer.graph import lease, queue
    from maintainer.serve import fleet, worker
    from maintainer.stores import shared_limit

    lease.DURATION = LEASE
    queue._STALLED_AFTER = LEASE
    shared_limit._FRESH = 0.2
    fleet._EVERY_FIVE_SECONDS = fleet._EVERY_HALF_MINUTE = "* * * * * *"
    worker._FIRST_BACKOFF = timedelta(seconds=0.1)
    worker._RETRY_AFTER = fleet._RETRY_AFTER = 0.5
    become(command)
