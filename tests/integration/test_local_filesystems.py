"""What a run does in a directory on a file system that is not as others: FUSE, NFS, shares."""

import errno
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.directories import World, a_directory, layer_of

NO_GRACE = timedelta(0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _layers(*steps: str) -> set[str]:
    return {layer_of(step) for step in steps}


def _fails(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# Replacing a file that is open, as FUSE does it: two steps, of which the second may fail.


def _renames_in_two_steps(world: World, *, failures: int) -> Callable[..., None]:
    rename, left = os.rename, iter(range(failures))

    def rename_in_two_steps(old: str, new: str, **where: int) -> None:
        if new != "index.json":
            rename(old, new, **where)
            return
        if (world.path / new).exists():
            rename(world.path / new, world.path / ".fuse_hidden0000000100000001")
        if next(left, None) is not None:
            raise _fails(errno.EDQUOT)
        rename(old, new, **where)

    return rename_in_two_steps


def _a_tag_to_repair(world: World) -> None:
    world.build("base", "tools", "api")
    world.evict("api")


def test_an_index_that_is_gone_halfway_through_its_replacement_is_written_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    monkeypatch.setattr(os, "rename", _renames_in_two_steps(world, failures=1))

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.leads_to() == _layers("base", "tools")
    assert not list(world.path.glob(".maintainer-*"))


def test_an_index_that_stays_gone_is_kept_under_the_name_that_the_run_and_the_next_one_tell(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    world.put("orphan")
    world.passes(days=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", _renames_in_two_steps(world, failures=2))
        report = world.gc(grace=NO_GRACE)

    (kept,) = world.path.glob(".maintainer-*.tmp")
    (problem,) = report.problems
    assert problem.startswith("api was not written: index.json is gone")
    assert "(Disk quota exceeded)" in problem
    assert problem.endswith(f"rename {kept.name} to index.json")
    assert world.steps("orphan"), "without an index nothing is known to be unreferenced"

    world.passes(days=9)
    (problem,) = world.gc(grace=NO_GRACE).problems
    assert f"{kept.name} may be it: if so, rename it to index.json" in problem

    kept.rename(world.path / "index.json")
    report = world.gc()
    assert report.status == "done", report.problems
    assert world.leads_to() == _layers("base", "tools")


def test_an_index_that_only_the_file_system_still_has_is_named(world: World) -> None:
    world.build("base", "api")
    (world.path / ".maintainer-0123456789abcdef.tmp").write_text('{"a config": 1}')
    hidden = world.path / ".fuse_hidden0000000100000001"
    (world.path / "index.json").rename(hidden)
    before = world.files()

    (problem,) = world.gc().problems

    assert f"{hidden.name} may be it" in problem
    assert world.files() == before
