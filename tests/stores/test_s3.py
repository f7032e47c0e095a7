"""A bucket, as moto's server serves it, keeps the contract of all stores."""

from collections.abc import Iterator

import pytest

from tests.integration.simulated_runs import Memory
from tests.integration.world import blob_of
from tests.stores.contract import A_LOT_TO_DO, NO_GRACE, Begin, Contract, tell
from tests.stores.s3 import BUCKET, MANIFESTS, BucketRoom, Moto, a_server
from tests.stores.story import Build, Event, Garbled, Killed, Layer, Passes, Run, Story, TwoRuns


@pytest.fixture(scope="module")
def moto(request: pytest.FixtureRequest) -> Iterator[Moto]:
    """Serve one bucket; its server may ignore conditions of writes, or not know them."""
    how = getattr(request, "param", "conditions")
    with a_server() as moto:
        moto.ignores_conditions = how == "ignored"
        moto.refuses_conditions = how == "refused"
        yield moto


@pytest.fixture(scope="module")
def begin(moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Return what empties the bucket for each story."""
    folder = tmp_path_factory.mktemp("s3")
    memories = Memory.make(folder, 2)
    return lambda: BucketRoom(folder, memories, moto)


@pytest.mark.soak
class TestS3(Contract):
    """Run the contract on `s3:`; a story takes a second, because its requests are real."""


@pytest.mark.soak
@pytest.mark.parametrize("moto", ["ignored", "refused"], indirect=True)
class TestS3WithoutConditions(Contract):
    """Run it where a write cannot depend on what is there: compare, write, read back."""


@pytest.mark.parametrize("moto", ["conditions", "ignored"], indirect=True)
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


@pytest.mark.parametrize(
    "moto", ["ignored", pytest.param("refused", marks=pytest.mark.soak)], indirect=True
)
def test_a_build_is_lost_only_at_the_write_itself_where_there_are_no_conditions(
    moto: Moto, begin: Begin
) -> None:
    write = _find_write(moto, begin, "api")
    for step in (write - 1, write):
        place = tell(begin, *A_LOT_TO_DO, Run(NO_GRACE, {step: Build("api", "docs")}))

        assert (blob_of("docs") in place.usable("api")) == (step != write)


@pytest.mark.soak
@pytest.mark.parametrize("moto", ["ignored", "refused"], indirect=True)
def test_another_run_or_a_kill_at_a_write_without_conditions_loses_nothing(
    moto: Moto, begin: Begin
) -> None:
    write = _find_write(moto, begin, "api")

    tell(begin, *A_LOT_TO_DO, TwoRuns(NO_GRACE, NO_GRACE, write))
    tell(begin, *A_LOT_TO_DO, Killed(NO_GRACE, write + 1), Passes(1), Run(NO_GRACE))


def _find_write(moto: Moto, begin: Begin, image: str) -> int:
    """Return the step of a run with a lot to do that writes the index of an image."""
    story = Story(begin())
    story.tell(*A_LOT_TO_DO)
    seen: list[tuple[str, str]] = []
    note = {step: lambda: seen.append(moto.request) for step in range(1, 100)}
    story.place.run(NO_GRACE, note)
    return seen.index(("PUT", f"/{BUCKET}/{MANIFESTS}{image}")) + 1
