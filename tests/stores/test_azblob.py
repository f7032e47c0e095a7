"""A container, as Azurite serves it, keeps the contract of all stores."""

from collections.abc import Iterator

import pytest

from tests.integration.simulated_runs import Memory
from tests.stores.azblob import ContainerRoom, a_server
from tests.stores.contract import A_LOT_TO_DO, NO_GRACE, Begin, Contract, tell
from tests.stores.story import Build, Event, Garbled, Killed, Layer, Passes, Run, TwoRuns


@pytest.fixture(scope="module")
def begin(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Begin]:
    """Serve one container, which each story empties."""
    folder = tmp_path_factory.mktemp("azblob")
    memories = Memory.make(folder, 2)
    with a_server(request.config.cache.mkdir("azurite")) as azurite:
        yield lambda: ContainerRoom(folder, memories, azurite)


@pytest.mark.soak
class TestAzblob(Contract):
    """Run the contract on `azblob:`; a story takes a second, because its requests are real."""


def test_in_one_long_story_builds_accidents_runs_and_kills_lose_nothing(begin: Begin) -> None:
    while_it_runs: dict[int, Event] = {
        4: Build("api", "docs"),
        9: Layer("evicted", "web"),
        14: Build("web", "web"),
    }

    place = tell(
        begin,
        *A_LOT_TO_DO,
        Run(NO_GRACE, while_it_runs),
        Passes(1),
        Garbled("docs"),
        TwoRuns(NO_GRACE, NO_GRACE, 5),
        Build("docs", "docs"),
        Passes(25),
        Killed(NO_GRACE, 12),
        Run(NO_GRACE),
    )

    assert place.usable("web")
