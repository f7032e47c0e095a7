"""A worker in a process of its own, with less patience than it has: leases of seconds."""

from datetime import timedelta

from tests.integration.namespaces import enter
from tests.processes import Command, Forked, become, processes

LEASE = timedelta(seconds=4)


def start_hastily(command: Command, namespace: str = "") -> Forked:
    """Start a command that waits for nothing longer than the lease, maybe in a namespace."""
    process = processes().Process(target=_run, args=(command, namespace))
    process.start()
    return Forked(process)


def _run(command: Command, namespace: str) -> None:
    from maintainer.graph import lease, postgresql, queue
    from maintainer.serve import fleet, upkeep, worker
    from maintainer.stores.http import shared_limit

    lease.DURATION = LEASE
    seconds = int(LEASE.total_seconds())
    postgresql._SETTINGS["idle_in_transaction_session_timeout"] = f"{seconds}s"
    postgresql._SETTINGS["lock_timeout"] = "1s"
    postgresql._CONNECT_ARGUMENTS |= {
        "tcp_user_timeout": seconds * 1_000,
        "keepalives_idle": 1,
        "keepalives_interval": 1,
    }
    queue._STALLED_AFTER = LEASE
    shared_limit._FRESH = 0.2
    fleet._EVERY_FIVE_SECONDS = fleet._EVERY_HALF_MINUTE = "* * * * * *"
    upkeep.EVERY = 1.0
    worker._FIRST_BACKOFF = timedelta(seconds=0.1)
    worker._RETRY_AFTER = fleet._RETRY_AFTER = 0.5
    if namespace:
        enter(namespace)
    become(command)
