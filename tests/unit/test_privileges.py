"""Tests that must not be able to write are bound by modes, even if root runs them."""

import stat
from pathlib import Path

import pytest

from tests.privileges import bound_by_modes


def test_a_folder_that_is_read_only_binds_root_too_and_only_meanwhile(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with bound_by_modes(), pytest.raises(PermissionError):
            (tmp_path / "file").touch()
    finally:
        tmp_path.chmod(stat.S_IRWXU)
    (tmp_path / "file").touch()


def test_what_only_its_owner_may_enter_can_still_be_read(tmp_path: Path) -> None:
    inner = tmp_path / "clone"
    inner.mkdir()
    (inner / "module.py").write_text("answer = 42\n")
    tmp_path.chmod(stat.S_IRWXU)

    with bound_by_modes():
        assert (inner / "module.py").read_text() == "answer = 42\n"
