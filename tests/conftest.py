"""How Hypothesis searches, and what all tests do once for each process and not for each run.

Hypothesis takes the same examples every time in `make test`, new ones in `make soak`.
"""

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import none

from tests.commands import logging_put_back
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


@pytest.fixture(autouse=True)
def _logging_is_put_back() -> Iterator[None]:
    """Leave no handler of a command line: its stream is closed, so each later line is an error."""
    with logging_put_back():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import what is collected, but each process something else first.

    What is imported for the first time, as in a fresh clone, is compiled, with assertions that
    say what they compared: that takes three times as long as all else about collecting. So each
    process does a part of it, and finds the rest done by the others.
    """
    number, count = (os.environ.get(f"PYTEST_XDIST_WORKER{one}") for one in ("", "_COUNT"))
    if number and count and session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        files = sorted(session.path.glob("tests/*/test_*.py"))
        for path in files[int(number.removeprefix("gw")) :: int(count)]:
            # What cannot be imported is reported when it is collected.
            with suppress(Exception):
                import_module(".".join(path.relative_to(session.path).with_suffix("").parts))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have two processes more than there are processors: two of them wait, most of the time."""
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that wait, in two processes: one would take longer than all the others.

    At the end, nothing else would use the processors. Each process begins with as large a part of
    the tests, in their order.
    """
    waits = [item for item in items if item.get_closest_marker("waits")]
    others = [item for item in items if not item.get_closest_marker("waits")]
    half = len(waits) // 2
    part = len(items) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = others[: max(part - half, 0)]
    items[:] = [*waits[:half], *first, *waits[half:], *others[len(first) :]]


def _take(value: None) -> None:
    del value


@pytest.fixture(scope="session", autouse=True)
def _collections_are_cheap() -> None:
    """Leave what is there when the first test begins out of all garbage collections.

    All of pytest's tests are, and what was imported: one collection took a third of a second.
    There are fewer of them, too: they were a twentieth of all work. What Hypothesis keeps is made
    before, when it is first used: it asks who refers to that, and what is frozen does not answer.
    """
    given(none())(_take)()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _clients_are_cheap() -> Iterator[None]:
    """Read the trusted certificates once.

    Every client does, and there are thousands: it is most of what they cost. The AWS SDK reads its
    own for each client; no test gives it others.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context))
        if sdk := sys.modules.get("aiobotocore.httpsession"):
            make = sdk.AIOHTTPSession._build_verify_context
            patch.setattr(sdk.AIOHTTPSession, "_build_verify_context", _once_for_each_verify(make))
        yield


def _once_for_each_verify(make: Callable[[Any], object]) -> Callable[[Any], object]:
    """Make one context for each kind of verification."""
    made: dict[object, object] = {}

    def find(session: Any) -> object:
        if session._verify not in made:
            made[session._verify] = make(session)
        return made[session._verify]

    return find
