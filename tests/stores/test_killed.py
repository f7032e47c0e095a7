"""A process of `maintainer gc` may be killed at any request to an object storage or a registry.

Builders then find no less than before, and the next run arrives where an undisturbed one would.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.simulated_runs import Memory
from tests.integration.victims import AFTER, BEFORE
from tests.integration.world import blob_of
from tests.stores.docker_registry import REPOSITORY, a_registry
from tests.stores.gate import Gate, Kill, a_gate
from tests.stores.killed import Found, Victim
from tests.stores.registry import Repository


@contextmanager
def _bucket(folder: Path, cache: Path) -> Iterator[Victim]:
    from tests.stores.s3 import ENVIRONMENT, BucketRoom, a_server

    del cache
    with a_server() as moto, a_gate(moto.url) as gate:

        def begin() -> None:
            moto.now = datetime.now(UTC)

        memory = Memory.make(folder, 1)
        room = BucketRoom(folder, memory, moto)
        yield Victim(room, memory[0], gate, _of_bucket(gate), folder, ENVIRONMENT, begin)


@contextmanager
def _weed(folder: Path, cache: Path) -> Iterator[Victim]:
    from tests.stores.seaweedfs import ENVIRONMENT, WeedRoom, a_server

    del cache
    with a_server(folder) as address, a_gate(str(address.endpoint_url)) as gate:
        memory = Memory.make(folder, 1)
        room = WeedRoom(folder, memory, address)
        yield Victim(room, memory[0], gate, _of_bucket(gate), folder, ENVIRONMENT)


def _of_bucket(gate: Gate) -> str:
    return (
        f"s3://cache/app/?region=us-east-1&path_style=true&endpoint_url={gate.url}"
        "&touch_refresh=0s&longest_export=0s"
    )


@contextmanager
def _container(folder: Path, cache: Path) -> Iterator[Victim]:
    from maintainer.stores.azblob.client import KEY
    from tests.stores.azblob import ACCOUNT, ACCOUNT_KEY, CONTAINER, ContainerRoom, a_server

    with a_server(cache) as azurite, a_gate(azurite.url) as gate:

        def begin() -> None:
            azurite.now = datetime.now(UTC)

        memory = Memory.make(folder, 1)
        store = (
            f"azblob://{ACCOUNT}/{CONTAINER}/app?account_url={gate.url}/{ACCOUNT}&longest_export=0s"
        )
        room = ContainerRoom(folder, memory, azurite)
        yield Victim(room, memory[0], gate, store, folder, {KEY: ACCOUNT_KEY}, begin)


@contextmanager
def _repository(folder: Path, cache: Path) -> Iterator[Victim]:
    del cache
    with a_registry(folder) as registry, a_gate(f"http://{registry.host}") as gate:
        memory = Memory.make(folder, 1)
        store = f"registry://{gate.url.removeprefix('http://')}/{REPOSITORY}?insecure=true"
        room = Repository(folder, memory, registry)
        yield Victim(room, memory[0], gate, store, folder, orphans=())


_STORES: Mapping[str, Callable[[Path, Path], AbstractContextManager[Victim]]] = {
    "s3": _bucket,
    "azblob": _container,
    "registry": _repository,
}
_MORE = {"seaweedfs": _weed}
"""Those that only `make soak` installs."""


@pytest.fixture(
    scope="module",
    params=[*_STORES, *(pytest.param(name, marks=pytest.mark.soak) for name in _MORE)],
)
def victim(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Victim]:
    """Serve one cache, which has a lot to do for its second run."""
    name = request.param
    folder, cache = tmp_path_factory.mktemp(name), request.config.cache.mkdir("azurite")
    with {**_STORES, **_MORE}[name](folder, cache) as victim:
        yield victim


def _kill(victim: Victim, kill: Kill) -> bool:
    """Kill a run, unless it ends first; return whether it was killed."""
    before = victim.found()
    status = victim.gc(kill)
    assert status in (-signal.SIGKILL, 0), victim.said()
    assert victim.room.problems() == []
    assert before.harm(victim.found()) == []
    return status != 0


def _end(victim: Victim) -> Found:
    """Do a run that nobody disturbs; return where it has arrived."""
    assert victim.gc() == 0, victim.said()
    assert victim.room.problems() == []
    assert victim.before.harm(victim.found()) == []
    return victim.found()


def test_killed_while_it_writes_and_while_it_deletes_a_run_can_simply_be_run_again(
    victim: Victim,
) -> None:
    assert _kill(victim, Kill(AFTER, 3, "PUT"))
    assert _kill(
        victim, Kill(AFTER, 2, "DELETE" if victim.store.startswith("registry:") else "POST")
    )

    arrival = _end(victim)

    assert victim.statuses() == ["done", "killed", "killed", "done"]
    assert not any(arrival.missing.values())
    assert not arrival.stored & set(map(blob_of, victim.orphans))


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_killed_at_any_request_a_run_can_simply_be_run_again(
    victim: Victim, record_testsuite_property: Callable[[str, object], None]
) -> None:
    victim.set_up()
    arrival = _end(victim)
    requests, kills = len(victim.gate.asked), 0
    for moment in (BEFORE, AFTER):
        for number in range(1, requests + 1):
            victim.set_up()
            kills += _kill(victim, Kill(moment, number))
            assert _end(victim) == arrival, (moment, number)
            assert victim.statuses()[2:] in ([], ["done"])
    record_testsuite_property(victim.store, f"{kills} kills at {requests} requests")
    assert kills > requests
