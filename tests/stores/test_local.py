"""A directory keeps the contract of all stores."""

import pytest

from tests.integration.simulated_runs import Memory
from tests.stores.contract import Begin, Contract
from tests.stores.local import Folder


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Make one directory after the other, for the same two databases."""
    folder = tmp_path_factory.mktemp("local")
    memories = Memory.make(folder, 2)
    return lambda: Folder(folder / "place", memories)


class TestLocal(Contract):
    """Run the contract on `local:`."""
