"""GitHub's cache, as the emulator serves it, keeps the contract of all stores."""

from collections.abc import Iterator

import pytest

from tests.integration.simulated_runs import Memory
from tests.integration.world import a_world
from tests.stores.contract import Begin, Contract
from tests.stores.github import Service


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begin]:
    """Serve one cache, which each story empties."""
    folder = tmp_path_factory.mktemp("github")
    memories = Memory.make(folder, 2)
    with a_world(folder) as world:
        yield lambda: Service(world, memories, folder / "kept.db")


class TestGitHub(Contract):
    """Run the contract on `github:`."""
