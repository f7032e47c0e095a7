"""A bucket, as moto's server serves it, keeps the contract of all stores."""

from collections.abc import Iterator

import pytest

from tests.integration.simulated_runs import Memory
from tests.stores.contract import A_LOT_TO_DO, NO_GRACE, Begin, Contract, tell
from tests.stores.s3 import BucketRoom, a_server
from tests.stores.story import Build, Event, Garbled, Killed, Layer, Passes, Run, TwoRuns


@pytest.fixture(scope="module")
def begin(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Begin]:
    """Serve one bucket, which each story empties; its server may ignore conditions of writes."""
    folder = tmp_path_factory.mktemp("s3")
    memories = Memory.make(folder, 2)
    with a_server() as moto:
        moto.ignores_conditions = getattr(request, "param", False)
        yield lambda: BucketRoom(folder, memories, moto)


@pytest.mark.soak
class TestS3(Contract):
    """Run the contract on `s3:`; a story takes a second, because its requests are real."""


@pytest.mark.parametrize("begin", [False, True], indirect=True, ids=["conditions", "without"])
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
