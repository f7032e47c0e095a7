"""Without the SDK of a service, its store says in one line what to install."""

import sys

import anyio
import pytest

from maintainer.errors import UsageError
from maintainer.settings import Settings
from maintainer.stores.kinds import connect


@pytest.mark.parametrize(
    ("store", "module", "problem"),
    [
        ("s3://cache/app/", "aiobotocore.config", "a bucket needs the extra s3 "),
        ("azblob://account/cache", "azure.identity.aio", "a container needs the extra azure "),
        ("azblob://account/cache", "azure.storage.blob", "a container needs the extra azure "),
    ],
)
def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, store: str, module: str, problem: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("s3", "azblob"):
        monkeypatch.delitem(sys.modules, f"maintainer.stores.{name}.client", raising=False)

    async def open_it() -> None:
        async with connect(Settings(store=store)).open():
            pass

    with pytest.raises(UsageError, match=problem) as error:
        anyio.run(open_it)

    extra = problem.rsplit(maxsplit=1)[-1]
    assert str(error.value).endswith(
        f": pip install 'buildkit-maintainer[{extra}]', or in a clone "
        f".venv/bin/uv pip install -e '.[{extra}]'"
    )
    assert "\n" not in str(error.value)
