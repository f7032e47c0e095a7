"""How Hypothesis searches, and what all tests do once for each process and not for each run.

Hypothesis takes the same examples every time in `make test`, new ones in `make soak`.
"""

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import httpcore2
import pytest
from hypothesis import HealthCheck, settings

from tests.empty_database import on_postgresql
from tests.statements import compile_once

# The assertions of the contract say what they compared, as those of test modules do.
pytest.register_assert_rewrite("tests.stores.contract", "tests.stores.story")

settings.register_profile(
    "test",
    deadline=None,
    derandomize=True,
    max_examples=10,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("coverage", settings.get_profile("test"), max_examples=5)
settings.register_profile("soak", deadline=None, max_examples=3_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


compile_once()

# Nothing that is imported or collected is garbage, and to look for it again and again takes long.
gc.disable()

_IN_MEMORY = Path("/dev/shm")
_ROOM = 2**30


def _keep_files_in_memory() -> None:
    """Have temporary files in memory, where there is room: databases wait for a disk otherwise."""
    if _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_IN_MEMORY))


_keep_files_in_memory()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `each_database` on SQLite and on PostgreSQL."""
    if metafunc.definition.get_closest_marker("each_database"):
        metafunc.parametrize("kind_of_database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def kind_of_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make every database of a test one of its kind, before anything else is set up."""
    kind = getattr(request, "param", "")
    with on_postgresql() if kind == "postgresql" else nullcontext():
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have one process more than there are processors: one of them always waits for something."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", autouse=True)
def _collections_are_cheap() -> None:
    """Leave what is there when the first test begins out of all garbage collections.

    All of pytest's tests are, and what was imported: one collection took a third of a second.
    """
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _clients_are_cheap() -> Iterator[None]:
    """Read the trusted certificates once.

    Every client does, and there are thousands: it is most of what they cost.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context))
        yield
