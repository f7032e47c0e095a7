"""A store that lives in memory, and was written for this test alone, keeps the contract of all."""

from datetime import timedelta

import pytest

from tests.integration.simulated_runs import Memory
from tests.stores.contract import Begin, Contract, tell
from tests.stores.memory_place import Room
from tests.stores.place import How
from tests.stores.story import Build, Event, Layer, Passes, Run


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Make one vault after the other, for the same two databases."""
    folder = tmp_path_factory.mktemp("memory")
    memories = Memory.make(folder, 2)
    return lambda: Room(folder, memories)


class TestMemory(Contract):
    """Run the contract on a vault."""


def test_what_an_export_referenced_that_a_run_has_merged_in_has_its_grace_period(
    begin: Begin,
) -> None:
    day = How(timedelta(hours=24))
    not_referenced = (Build("api", "lib"), Build("web", "docs"), Layer("stored", "test"))
    noticed = (Run(day), Passes(1), Run(day), Passes(20), Build("api", "docs"))
    referenced_in_vain: dict[int, Event] = {3: Build("api", "test"), 4: Layer("evicted", "api")}

    tell(begin, *not_referenced, *noticed, Run(day, referenced_in_vain), Passes(10), Run(day))
