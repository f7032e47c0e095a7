"""A repository, as Debian's docker-registry serves it, keeps the contract of all stores."""

from collections.abc import Iterator

import pytest

from tests.integration.simulated_runs import Memory
from tests.stores.contract import A_LOT_TO_DO, NO_GRACE, Begin, Contract, tell
from tests.stores.docker_registry import a_registry
from tests.stores.ghcr import packages_of
from tests.stores.registry import Repository
from tests.stores.story import Build, Event, Garbled, Killed, Layer, Passes, Run, TwoRuns


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begin]:
    """Serve one registry, which each story empties."""
    folder = tmp_path_factory.mktemp("registry")
    memories = Memory.make(folder, 2)
    with a_registry(folder) as registry:
        yield lambda: Repository(folder, memories, registry)


@pytest.mark.soak
class TestRegistry(Contract):
    """Run the contract on `registry:`; a story takes a second, because its requests are real."""


@pytest.mark.soak
class TestGhcr(Contract):
    """Run it where manifests without a tag are listed and deleted by GitHub's API for packages."""

    @pytest.fixture(scope="module")
    @classmethod
    def begin(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begin]:
        """Serve one registry that deletes nothing, and the API."""
        folder = tmp_path_factory.mktemp("ghcr")
        memories = Memory.make(folder, 2)
        with a_registry(folder, deletes=False) as registry, packages_of(registry) as packages:
            yield lambda: Repository(folder, memories, registry, packages)


def test_in_one_long_story_builds_accidents_runs_and_kills_lose_nothing(begin: Begin) -> None:
    while_it_runs: dict[int, Event] = {
        4: Build("api", "docs"),
        19: Layer("evicted", "web"),
        34: Build("web", "web"),
    }

    place = tell(
        begin,
        *A_LOT_TO_DO,
        Run(NO_GRACE, while_it_runs),
        Passes(1),
        Garbled("docs"),
        TwoRuns(NO_GRACE, NO_GRACE, 25),
        Build("docs", "docs", other_form=True),
        Passes(25),
        Killed(NO_GRACE, 22),
        Run(NO_GRACE),
    )

    assert place.usable("web")
