"""Without the AWS SDK, a bucket says in one line what to install."""

import sys

import anyio
import pytest

from maintainer.errors import UsageError
from maintainer.settings import Settings
from maintainer.stores.registry import connect


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore.config", None)
    monkeypatch.delitem(sys.modules, "maintainer.stores.s3.client", raising=False)

    async def open_it() -> None:
        async with connect(Settings(store="s3://cache/app/")).open():
            pass

    with pytest.raises(UsageError, match=r"a bucket needs the extra s3 .*pip install '\.\[s3\]'"):
        anyio.run(open_it)
