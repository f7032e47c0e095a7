"""A directory keeps the contract of all stores."""

import pytest

from tests.integration.simulated_runs import Memory
from tests.samples import one_in
from tests.stores.contract import NO_GRACE, Begin, Contract, tell
from tests.stores.local import Folder
from tests.stores.story import Build, Layer, Run


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Make one directory after the other, for the same two databases."""
    folder = tmp_path_factory.mktemp("local")
    memories = Memory.make(folder, 2)
    return lambda: Folder(folder / "place", memories)


class TestLocal(Contract):
    """Run the contract on `local:`."""


@pytest.mark.parametrize("step", one_in(4, range(1, 40), but=(18, 31)))
def test_a_build_that_brings_its_layer_back_at_any_step_keeps_its_manifest(
    begin: Begin, step: int
) -> None:
    again = Build("api", "api")

    tell(begin, again, Layer("evicted", "api"), Run(NO_GRACE, {step: again}), Run(NO_GRACE))
