"""A store that lives in memory, and was written for this test alone, keeps the contract of all."""

import pytest

from tests.integration.simulated_runs import Memory
from tests.stores.contract import Begin, Contract
from tests.stores.memory_place import Room


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Make one vault after the other, for the same two databases."""
    folder = tmp_path_factory.mktemp("memory")
    memories = Memory.make(folder, 2)
    return lambda: Room(folder, memories)


class TestMemory(Contract):
    """Run the contract on a vault."""
