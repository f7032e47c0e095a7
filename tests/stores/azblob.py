"""A container of Azurite: real HTTP, the real SDK, and a clock of ours.

Builds write in the way of BuildKit's `type=azblob`.
"""

import subprocess
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobProperties, ContainerClient

from maintainer.report import Report
from maintainer.stores.azblob.address import Address
from maintainer.stores.azblob.client import KEY, Container, open_container
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.objects.store import ObjectStore
from tests.integration.simulated_runs import Memory
from tests.integration.world import START
from tests.stores.memory import Vault
from tests.stores.memory_place import Room
from tests.stores.place import How
from tests.stores.runs import run_on
from tests.third_party.npm import install

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Azurite has it built in, and its documentation shows it."""
CONTAINER = "cache"
BLOBS = "app/blobs/"
MANIFESTS = "app/manifests/"
_SOURCE = Path(__file__).parents[1] / "third_party" / "azurite"


@dataclass
class Steps(RequestLog):
    """Calls something before each request."""

    before: Callable[[], None] = lambda: None

    def count(self, kind: str, *, again: bool) -> None:
        """Count a request that is about to be sent."""
        super().count(kind, again=again)
        self.before()


class Azurite:
    """The server, and one container."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, container: str) -> None:
        self.url = url
        self._process = process
        self._now = START
        credential = {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY}
        self.client = ContainerClient(url, container, credential=credential)

    @property
    def now(self) -> datetime:
        """The time of the server."""
        return self._now

    @now.setter
    def now(self, now: datetime) -> None:
        if now == self._now:
            return
        assert self._process.stdin
        assert self._process.stdout
        self._now = now
        line = f"{int(now.timestamp() * 1000)}\n"
        self._process.stdin.write(line)
        self._process.stdin.flush()
        while self._process.stdout.readline() != f"now {line}":
            pass

    def empty(self) -> None:
        """Begin with one empty container."""
        with suppress(ResourceNotFoundError):
            self.client.delete_container()
        self.client.create_container()

    def put(self, key: str, content: bytes) -> None:
        """Write a blob."""
        self.client.upload_blob(key, content, overwrite=True)

    def get(self, key: str) -> bytes:
        """Read a blob."""
        return self.client.download_blob(key).readall()

    def delete(self, key: str) -> None:
        """Delete a blob."""
        self.client.delete_blob(key)

    @property
    def listed(self) -> dict[str, BlobProperties]:
        """What is stored, by name."""
        return {one.name: one for one in self.client.list_blobs()}

    def address(self, **more: Any) -> Address:
        """Return where the cache is."""
        return Address(ACCOUNT, CONTAINER, "app", **({"account_url": self.url} | more))

    def open(self, **more: Any) -> AbstractAsyncContextManager[Container]:
        """Connect as a run does."""
        return open_container(self.address(**more))


@contextmanager
def a_server(folder: Path, container: str = CONTAINER) -> Iterator[Azurite]:
    """Install Azurite in a folder, unless it is there, and serve one empty container."""
    install(_SOURCE, folder)
    command: list[str | Path] = [
        "node", "--require", _SOURCE / "clock.cjs",
        folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js",
        "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent",
        "--blobPort", "0",
    ]  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout
            assert process.stderr
            for line in process.stdout:
                if "successfully listens on" in line:
                    url = f"{line.split()[-1]}/{ACCOUNT}"
                    break
            else:
                pytest.fail(process.stderr.read())
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(KEY, ACCOUNT_KEY)
                azurite = Azurite(process, url, container)
                azurite.now = START + timedelta(seconds=1)
                azurite.empty()
                with azurite.client:
                    yield azurite
        finally:
            process.kill()
            process.communicate()


class _Seen:
    """What is stored, as of the last look."""

    def __init__(self, azurite: Azurite) -> None:
        self.azurite = azurite
        self._listed: dict[str, BlobProperties] | None = None
        self._contents: dict[str, bytes] = {}
        """The contents of indexes, by tag."""

    def forget(self) -> None:
        """Look again when it is asked for."""
        self._listed = None

    def under(self, prefix: str) -> dict[str, BlobProperties]:
        """Return what is stored under a prefix, by the rest of its name."""
        if self._listed is None:
            self._listed = self.azurite.listed
        return {k.removeprefix(prefix): v for k, v in self._listed.items() if k.startswith(prefix)}

    def content(self, key: str, tag: str) -> bytes:
        """Return the content of an index."""
        if tag not in self._contents:
            self._contents[tag] = self.azurite.get(key)
        return self._contents[tag]

    def put(self, key: str, content: bytes, at: datetime) -> None:
        """Write a blob at a time."""
        self.azurite.now = at
        self.azurite.put(key, content)
        self.forget()

    def delete(self, key: str) -> None:
        """Delete a blob."""
        self.azurite.delete(key)
        self.forget()


class _Blobs(MutableMapping[str, datetime]):
    """The blobs of the container, with the times of their last writes."""

    def __init__(self, seen: _Seen) -> None:
        self._seen = seen

    def __getitem__(self, digest: str) -> datetime:
        return self._seen.under(BLOBS)[digest].last_modified

    def __setitem__(self, digest: str, at: datetime) -> None:
        self._seen.put(BLOBS + digest, b"0123456789", at)

    def __delitem__(self, digest: str) -> None:
        self._seen.delete(BLOBS + digest)

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen.under(BLOBS))

    def __len__(self) -> int:
        return len(self._seen.under(BLOBS))


class _Indexes(MutableMapping[str, tuple[int, bytes, datetime]]):
    """The indexes of the container: their versions are hashes of their tags."""

    def __init__(self, seen: _Seen) -> None:
        self._seen = seen

    def __getitem__(self, name: str) -> tuple[int, bytes, datetime]:
        found = self._seen.under(MANIFESTS)[name]
        content = self._seen.content(MANIFESTS + name, found.etag)
        return hash(found.etag), content, found.last_modified

    def __setitem__(self, name: str, index: tuple[int, bytes, datetime]) -> None:
        self._seen.put(MANIFESTS + name, index[1], index[2])

    def __delitem__(self, name: str) -> None:
        self._seen.delete(MANIFESTS + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen.under(MANIFESTS))

    def __len__(self) -> int:
        return len(self._seen.under(MANIFESTS))


class ContainerRoom(Room):
    """Steps are requests; of two runs, all of the second is one step of the first."""

    def __init__(self, folder: Path, memories: Sequence[Memory], azurite: Azurite) -> None:
        azurite.empty()
        self._seen = _Seen(azurite)
        super().__init__(folder, memories, Vault(_Blobs(self._seen), _Indexes(self._seen)))
        self._azurite = azurite

    async def _collect(self, memory: Memory, how: How, now: datetime, **settings: object) -> Report:
        """Do a run over HTTP."""

        def before() -> None:
            self._seen.forget()
            self._vault.step()
            self._azurite.now = now

        before()
        async with self._azurite.open(longest_export=timedelta(0)) as container:
            container.requests = Steps(before=before)
            layout = self._azurite.address(longest_export=timedelta(0)).layout
            store = ObjectStore(container, layout, max_index_size=2**20)
            try:
                return await run_on(store, memory, how, now, **(settings | {"export_wait": 0}))
            finally:
                self._seen.forget()

    def look(self) -> None:
        """Look at the server anew."""
        self._seen.forget()
        super().look()
