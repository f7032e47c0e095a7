"""What several modules of acceptance tests look at."""

import os

import pytest

from tests.acceptance.demo import Demo, run_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Return what the demo leaves; test processes share it."""
    place = tmp_path_factory.getbasetemp()
    return run_demo((place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "demo")
